"""Records of images."""

import numpy as np

from headstart.data.records import array_records


def test_taking_images_copies_none(tmp_path) -> None:
    mapped = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(6, 4, 4, 3))
    mapped[:] = np.arange(6)[:, None, None, None]
    taken = array_records(mapped, np.arange(6) % 2, "noise").take(np.array([4, 1, 5])).take(np.array([2, 0]))
    assert taken.decoded
    assert taken.ids == ["noise/5", "noise/4"]
    assert taken.targets.tolist() == [1, 0]
    assert all(np.shares_memory(image, mapped) for image in taken.images)
    assert [int(image[0, 0, 0]) for image in taken.images] == [5, 4]
