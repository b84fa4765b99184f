"""Settings of scanning: where a corpus lies, how, and which part of it is listed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from stages.scan.classes import ClassPatterns
from stages.scan.layouts import layout_name
from stages.scan.protocols import protocol_settings, set_list

SplitName = Literal["train", "val", "test"]


class ScanSettings(BaseModel):
    """Where the images of a corpus lie and how, and which of them its manifest lists.

    Attributes:
        root: folder of images, archive, list of images, or pattern of archives; relative to LTDPIPE_DATA (or to the
            project where that is not set), absolute, or a URL of fsspec.
        layout: how its folders tell label, generator and split.
        reals: a second root, that of real images which all sets without reals of their own share.
        classes: names of folders, and labels, of real and of synthetic images, where they are no built-in ones.
        protocol: name of a protocol in ``protocols.yaml``: sets `sets` and `geometry` as that work does on this layout,
            where they are not set here.
        sets: name of a list of test sets, or names of sets: only their images are listed.
        splits: only these splits are listed.
        categories: only images of these categories, such as the LSUN classes of ProGAN's training images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str
    layout: Annotated[str, AfterValidator(layout_name)] = "folder"
    reals: str | None = None
    classes: ClassPatterns | None = None
    protocol: str | None = None
    sets: str | tuple[str, ...] | None = None
    splits: tuple[SplitName, ...] | None = None
    categories: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _protocol(cls, values: Any) -> Any:
        """Fill what the protocol says."""
        protocol = values.get("protocol") if isinstance(values, dict) else None
        if not isinstance(protocol, str):  # the field's own check tells what else it is
            return values
        implied = protocol_settings(protocol, str(values.get("layout", cls.model_fields["layout"].default)))
        return {key: value for key, value in implied.items() if key in cls.model_fields} | values

    @model_validator(mode="after")
    def _known_list(self) -> ScanSettings:
        if isinstance(self.sets, str):
            chosen = set_list(self.sets)
            if self.layout not in (chosen.layout, "auto", "list"):
                raise ValueError(f"list {self.sets!r} names sets of layout {chosen.layout!r}, found {self.layout!r}")
        return self

    @property
    def set_order(self) -> tuple[str, ...]:
        """Names of the test sets in the order of tables, where they are named."""
        return set_list(self.sets).members if isinstance(self.sets, str) else self.sets or ()
