import numpy as np
import torch

from nailseg.data.manifest import Row
from nailseg.evaluation.per_image import image_table, read_counts, read_table, write_csv
from nailseg.metrics.image_counts import class_counts, count_images

NAMES = ["background", "nail"]


def test_counts_survive_the_file(tmp_path) -> None:
    target = torch.zeros(3, 40, 40, dtype=torch.long)
    target[0, 4:20, 4:20] = 1
    target[1, 4:12, 4:12] = 1
    logits = torch.stack([1.0 - target, target], 1).roll(2, -1)
    counts = count_images(logits, target, torch.tensor([4, 7, 2]))
    rows = [
        Row("NA", "007.png", "test", ""),
        Row("b, c.jpg", None, "test", "g"),
        Row("d.jpg", "d.png", "test", ""),
    ]
    table = image_table(counts, NAMES, rows)
    assert table.index.tolist() == [4, 7, 2]
    assert np.isnan(table["dice_nail"].iloc[2])
    path = tmp_path / "run" / "test" / "per_image.csv"
    path.parent.mkdir(parents=True)
    write_csv(table, path)
    lines = path.read_bytes().split(b"\r\n")
    assert lines[0].startswith(
        b"image,mask,group,dice_nail,iou_nail,hits_nail,false_alarms_nail,misses_nail,"
    )
    assert lines[2].startswith(b'"b, c.jpg",,g,0.75,0.6,')
    assert lines[3].startswith(b"d.jpg,d.png,,,,0,0,0,")
    found = read_table(path)
    assert (found.name, found.class_names) == ("run", ("nail",))
    images = [row.image for row in rows]
    assert torch.equal(read_counts(found, images, "nail"), class_counts(counts, 1).double())


def test_an_older_file_gives_nan_for_what_it_lacks(tmp_path) -> None:
    path = tmp_path / "per_image.csv"
    path.write_text("image,hits_nail,false_alarms_nail,misses_nail,objects_nail\na.jpg,1,2,3,\n")
    counts = read_counts(read_table(path), ["a.jpg"], "nail")
    assert counts[0, :3].tolist() == [1, 2, 3]
    assert counts[0, 3:].isnan().all()


def test_cells_beyond_the_header_are_ignored(tmp_path) -> None:
    path = tmp_path / "per_image.csv"
    path.write_text("image,hits_nail,false_alarms_nail,misses_nail\na.jpg,1,2,3,\nb.jpg,4,5,6,x\n")
    counts = read_counts(read_table(path), ["a.jpg", "b.jpg"], "nail")
    assert counts[:, :3].tolist() == [[1, 2, 3], [4, 5, 6]]
