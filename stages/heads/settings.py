"""What a user may set of each head family and of training. Free of torch: every command validates parameters.

CONTRIBUTING.md says what a new family needs.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from storage.errors import SettingError
from storage.views import expand_views

HELD_OUT = "held-out"

HeadTap = Literal["cls", "ln2_cls", "embedding", "pooled", "mean"]
Branch = Literal["raw", "delta"]
BRANCHES: tuple[Branch, ...] = ("raw", "delta")  # the order in which the classifier reads them

# Strict models take a list for a tuple only where told so, and YAML and JSON know lists only.
_FromList = Field(strict=False)
_MOST_SHARED = 2  # blocks that two chosen windows have in common
_NUMBER = "(0|[1-9][0-9]*)"
_Block = Annotated[int, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]
_Dropout = Annotated[float, Field(ge=0, lt=1)]
_Patience = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Overrides(_Strict):
    """Training settings that a method or head overrides; None keeps the study's."""

    lr: _Positive | None = None
    epochs: _Count | None = None
    batch: _Count | None = None
    patience: _Patience | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}


class TrainSettings(_Strict):
    """How heads are trained; the defaults are those of the LTD paper.

    Attributes:
        lr: learning rate of AdamW, with betas 0.9 and 0.999 and without weight decay.
        epochs: passes over the training images, at most.
        batch: images per optimizer step.
        patience: after so many epochs without a better validation accuracy the learning rate is divided by 10, and
            training ends when it falls below 1e-6 (UnivFD's schedule); 0 disables it.
        views: views of the training images, as in ``corpora.<name>.views``; epoch e reads view e mod V.
        validation: which images choose the best epoch: "held-out", a share of the training images, or the name of
            another split of the corpus, as "val" or, for the choice of the LTD authors, "test".
        validation_share: share of the training images that is held out, by content hash.
        validation_view: the view in which these images are read.
    """

    lr: _Positive = 5e-5
    epochs: _Count = 5
    batch: _Count = 256
    patience: _Patience = 0
    views: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("clean",)
    validation: Annotated[str, Field(min_length=1)] = HELD_OUT
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_view: str = "clean"

    @field_validator("views")
    @classmethod
    def _are_views(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        expand_views(views)
        return views

    @field_validator("validation_view")
    @classmethod
    def _is_one_view(cls, view: str) -> str:
        if len(expand_views([view])) != 1:
            raise ValueError(f"validation reads one view, as clean or val; {view!r} stands for several")
        return view


class _Settings(_Strict):
    """Of any family: what it is in a few words, its authors' training settings, and those of this head alone."""

    about: ClassVar[str]
    _tap: ClassVar[HeadTap] = "cls"
    method: ClassVar[Overrides] = Overrides()

    train: Overrides = Overrides()

    def training(self, study: TrainSettings) -> TrainSettings:
        """How this head is trained: the study's settings, under the method's, under this head's own."""
        return study.model_copy(update=self.method.model_dump() | self.train.model_dump())

    @property
    def tap(self) -> HeadTap:
        """The tap it reads."""
        return self._tap


class LtdSettings(_Settings):
    """Settings of the Latent Transition Discrepancy head; the defaults are the published ones.

    Attributes:
        candidates: first and last block (0-based, inclusive) among which a window is chosen; None: see
            :meth:`candidates_for`.
        window: n, the number of adjacent blocks the head reads; at least 2 with the delta branch.
        selection: how the window is chosen: "gumbel", learned logits with one straight-through draw per sample in
            training and the arg-max in evaluation; "halving", every candidate window trains a head of its own and the
            held-out loss decides (successive halving), the head file holds the best one as "fixed:START"; or
            "fixed:START", the window that begins at block START (0-based, counted from the backbone's first block);
            where ``candidates`` is set, the window has to lie within. "fixed:START,START" reads two windows, each by
            branches of its own; "halving:2" chooses the best two that share at most two blocks.
        temperature: of the Gumbel-Softmax. It scales the gradient of the window logits, never which window is drawn.
        anneal: (end temperature, steps): the temperature moves linearly to the end, then stays there.
        selection_lr: learning rate of the window logits alone; None: that of all other parameters.
        branches: "raw" reads the CLS tokens, "delta" their differences; one of them alone is an ablation.
        position: whether each branch adds a learned position embedding.
        shared: whether the branches go through one encoder layer, as published, or each through one of its own.
        dropout: probability in the encoder layer's four dropouts.
        heads: attention heads; has to divide the backbone's width.
    """

    about: ClassVar = (
        "Latent Transition Discrepancy: how the class token moves between adjacent blocks (arXiv 2603.10598)"
    )

    type: Literal["ltd"] = "ltd"

    candidates: Annotated[tuple[_Block, _Block] | None, _FromList] = None
    window: _Count = 5
    selection: Annotated[str, Field(pattern=rf"^(gumbel|halving(:2)?|fixed:{_NUMBER}(,{_NUMBER})?)$")] = "gumbel"
    temperature: _Positive = 1.0
    anneal: Annotated[tuple[_Positive, _Count] | None, _FromList] = None
    selection_lr: _Positive | None = None
    branches: Annotated[tuple[Branch, ...], _FromList] = BRANCHES
    position: bool = True
    # not stated where it is the published one: heads made before it could be set stay what they are called
    shared: Annotated[bool, Field(exclude_if=bool)] = True
    dropout: _Dropout = 0.3
    heads: _Count = 8

    @field_validator("branches", mode="after")
    @classmethod
    def _in_order(cls, branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
        if not branches or len(set(branches)) != len(branches):
            raise ValueError(f"branches must be 'raw', 'delta' or both, each once; found {list(branches)}")
        return tuple(branch for branch in BRANCHES if branch in branches)

    @model_validator(mode="after")
    def _consistent(self) -> "LtdSettings":
        if self.candidates is not None and self.candidates[0] > self.candidates[1]:
            raise ValueError(f"candidates must be [first, last] with first <= last; found {list(self.candidates)}")
        if "delta" in self.branches and self.window < 2:
            raise ValueError(f"the delta branch needs a window of 2 blocks or more; found window {self.window}")
        if not self.shared and len(self.branches) < 2:
            raise ValueError("shared: false has no effect with one branch; remove it, or read both branches")
        if len(set(self.fixed_starts)) < len(self.fixed_starts):
            raise ValueError(f"selection {self.selection!r} names one window twice")
        for name in ("anneal", "selection_lr"):
            if self.selection != "gumbel" and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect with selection {self.selection!r}; remove one of the two")
        return self

    @property
    def fixed_starts(self) -> tuple[int, ...]:
        """First blocks of the windows that are fixed, ascending; none when the window is chosen."""
        kind, _, numbers = self.selection.partition(":")
        return tuple(sorted(map(int, numbers.split(",")))) if kind == "fixed" else ()

    @property
    def chosen_windows(self) -> int:
        """How many windows are chosen by held-out loss; 0 where they are learned or fixed."""
        return {"halving": 1, "halving:2": 2}.get(self.selection, 0)

    def pick(self, ranked: Sequence[int]) -> list[int]:
        """The best of ranked windows; where two are chosen, also the best that shares at most two blocks with it."""
        best, *others = ranked
        apart = [start for start in others if self.window - abs(start - best) <= _MOST_SHARED]
        return [best, *apart[: self.chosen_windows - 1]]

    def fixed_at(self, *starts: int) -> "LtdSettings":
        """These settings with the windows that begin at blocks ``starts``."""
        return self.model_copy(update={"selection": f"fixed:{','.join(map(str, starts))}"})

    def candidates_for(self, blocks: int) -> tuple[int, int]:
        """First and last candidate block in a backbone of ``blocks`` blocks (0-based, inclusive).

        Unless set, they are blocks 11 and 19 of 24, or the blocks at the same share of another depth L:
        round(11 / 23 (L - 1)) and round(19 / 23 (L - 1)), so 5..9 of 12.
        """
        return self.candidates or (round(11 / 23 * (blocks - 1)), round(19 / 23 * (blocks - 1)))

    def starts_for(self, blocks: int) -> Sequence[int]:
        """First blocks of the windows to choose among in a backbone of ``blocks`` blocks, or of those that are fixed.

        Raises:
            SettingError: candidates or window do not fit the depth; the message has the numbers.
        """
        n, fixed = self.window, self.fixed_starts
        whole = fixed and self.candidates is None
        first, last = (0, blocks - 1) if whole else self.candidates_for(blocks)
        within = f"backbone's blocks {first}..{last}" if whole else f"candidates {first}..{last}"
        if last >= blocks:
            raise SettingError(
                f"head 'ltd': candidates {first}..{last} go beyond the backbone's last block, {blocks - 1}; "
                f"choose candidates within 0..{blocks - 1}"
            )
        if last - first + 1 < n:
            raise SettingError(
                f"head 'ltd': window {n} is longer than the {last - first + 1} blocks of {within}; "
                f"choose a shorter window or more candidates"
            )
        starts = range(first, last - n + 2)
        for start in fixed:
            if start not in starts:
                raise SettingError(
                    f"head 'ltd': selection {self.selection!r} with window {n} needs blocks {start}..{start + n - 1}, "
                    f"outside the {within}; choose a start in {first}..{last - n + 1}"
                )
        if self.chosen_windows == 2 and len(self.pick([starts[0], starts[-1]])) == 1:
            raise SettingError(
                f"head 'ltd': selection 'halving:2' needs two windows of {n} blocks that share at most {_MOST_SHARED}; "
                f"{within} hold none: choose more candidates or a shorter window"
            )
        return fixed or starts


class LinearSettings(_Settings):
    """A linear probe on the CLS token of one block (0-based), of the last one, or of all blocks side by side.

    Or, where ``block`` names such a tap, on the image's "pooled" token or the "mean" of its patch tokens.
    """

    about: ClassVar = "Linear probe on class tokens"

    type: Literal["linear"] = "linear"
    block: _Block | Literal["last", "all", "pooled", "mean"] = "last"

    @property
    def tap(self) -> HeadTap:
        """The tap it reads."""
        return self.block if self.block in {"pooled", "mean"} else "cls"


class UnivfdSettings(_Settings):
    """UnivFD (CVPR 2023): one linear layer on the backbone's final embedding."""

    about: ClassVar = "UnivFD: one linear layer on the final embedding (CVPR 2023)"
    _tap: ClassVar[HeadTap] = "embedding"
    method: ClassVar[Overrides] = Overrides(lr=1e-4, epochs=100, batch=256, patience=5)

    type: Literal["univfd"] = "univfd"


class RineSettings(_Settings):
    """RINE (ECCV 2024); the defaults are its model for one training class.

    Attributes:
        depth: q, the number of linear layers of each of the two projections.
        project: d', their width.
        dropout: probability before and between all linear layers.
        contrastive: xi, the weight of the supervised contrastive loss.
        contrastive_temperature: its tau.
        reduction: of the cross-entropy over a batch. With the authors' sum the balance of the two losses depends on the
            size of the batch.
    """

    about: ClassVar = "RINE: class tokens of all blocks, weighted by a trainable importance (ECCV 2024)"
    _tap: ClassVar[HeadTap] = "ln2_cls"
    method: ClassVar[Overrides] = Overrides(lr=1e-3, epochs=1, batch=128)

    type: Literal["rine"] = "rine"
    depth: _Count = 4
    project: _Count = 1024
    dropout: _Dropout = 0.5
    contrastive: Annotated[float, Field(ge=0)] = 0.1
    contrastive_temperature: _Positive = 0.07
    reduction: Literal["sum", "mean"] = "sum"


HeadSettings = Annotated[LtdSettings | LinearSettings | UnivfdSettings | RineSettings, Field(discriminator="type")]
# type -> its settings
FAMILIES: dict[str, type[_Settings]] = {
    family.model_fields["type"].default: family for family in get_args(get_args(HeadSettings)[0])
}
