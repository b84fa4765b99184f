import numpy as np
import pytest
import torch

from planted import labels_of, noise, write_view
from stages.heads.head import HeadInput
from stages.train.batches import FeatureBatches
from storage.features import FeatureTable

IMAGES, VIEWS, ROWS = 330, 3, np.arange(7, 327)
STORED = HeadInput("cls", (3, 4, 5, 9))
ROW_BYTES = 4 * 32 * 2
VIEW_BYTES = len(ROWS) * ROW_BYTES


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        for view in range(VIEWS):
            write_view(folder / f"train-{view}", noise(IMAGES, view), labels_of(IMAGES), view=f"train-{view}")
    return [FeatureTable.open(folder / f"train-{view}") for view in range(VIEWS)]


def feed(tables, budget):
    return FeatureBatches(tables, ROWS, STORED, device=torch.device("cpu"), budget=budget)


def one_reader(source, view, order, size, reads):
    return ((features, labels) for (features,), labels in source.batches(view, order, size, [reads]))


@pytest.mark.parametrize("reads", [STORED, HeadInput("cls", (4, 5)), HeadInput("cls", (9,))])
@pytest.mark.parametrize("budget", [0, 2 * VIEW_BYTES, 10**9])
def test_what_comes_does_not_depend_on_the_budget(tables, budget, reads, monkeypatch):
    monkeypatch.setattr("stages.train.batches._LOAD_ROWS", 150)  # a view is loaded in three parts
    source = feed(tables, budget)
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(1))
    for epoch in (0, 1, 2, 1, 3):  # 3 is view 0 again
        batches = list(one_reader(source, epoch, order, 32, reads))
        expected = tables[epoch % VIEWS].read("cls", blocks=reads.blocks, rows=ROWS[order.numpy()])
        assert torch.equal(torch.cat([features for features, _ in batches]), torch.from_numpy(expected).float())
        labels = tables[0].index["label"].to_numpy()[ROWS[order.numpy()]]
        assert torch.cat([label for _, label in batches]).tolist() == labels.tolist()
        assert {len(label) for _, label in batches} == {32}


@pytest.mark.parametrize("budget", [10**9, 0], ids=["resident", "streamed"])
def test_the_order_of_images_belongs_to_seed_and_epoch(tables, budget):
    source = feed(tables, budget)
    order = source.order(1, 2)
    assert sorted(order.tolist()) == list(range(len(ROWS)))
    assert torch.equal(order, feed(tables, 2 * budget).order(1, 2))
    assert not any(torch.equal(order, source.order(*other)) for other in [(1, 3), (2, 2), (2, 1), (0, 3)])


def test_a_window_from_disk_is_made_of_a_few_runs_of_both_classes(tmp_path, own_store, monkeypatch):
    monkeypatch.setattr("stages.train.batches._RUN", 8)
    monkeypatch.setattr("stages.train.batches._WINDOW", 64)
    labels = np.repeat([0, 1, 0, 1], [100, 40, 36, 144])  # as in folders of classes
    tables = [FeatureTable.open(write_view(tmp_path / "clean", noise(len(labels)), labels))]
    source = FeatureBatches(tables, np.arange(len(labels)), STORED, device=torch.device("cpu"), budget=0)
    order = source.order(0, 0)
    for window in torch.split(order, 64):
        assert len(set((window // 8).tolist())) == 8
        assert abs(labels[window].mean() - labels.mean()) < 0.2
        assert (window.diff() == 1).float().mean() < 0.2
    assert torch.equal(torch.sort(order).values, torch.arange(len(labels)))


def test_streaming_holds_no_more_than_its_budget(tables, monkeypatch):
    read, seen = FeatureTable.read, []

    def counting(table, *arguments, **more):
        features = read(table, *arguments, **more)
        seen.append(features.nbytes)
        return features

    monkeypatch.setattr(FeatureTable, "read", counting)
    list(feed(tables, VIEW_BYTES - 1).batches(0, torch.arange(len(ROWS)), 32, [STORED]))
    assert 2 * max(seen) <= VIEW_BYTES - 1  # one that is used, and one that is read ahead
    assert sum(seen) == VIEW_BYTES
    seen.clear()
    monkeypatch.setattr("stages.train.batches._WINDOW", 16)  # where memory is large, four windows are enough
    list(feed(tables, VIEW_BYTES - 1).batches(0, torch.arange(len(ROWS)), 32, [STORED]))
    assert max(seen) == 2 * 32 * ROW_BYTES
