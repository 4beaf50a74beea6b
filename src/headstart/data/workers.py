"""How many processes load images."""


def choose_workers(*, images: int, from_files: bool, on_gpu: bool, cores: int) -> int:
    """How many processes should load a split of this many images.

    Small data are loaded faster than workers start. On the CPU training itself uses the cores, so few are spared.
    """
    if images < (64 if from_files else 4096):
        return 0
    return min(cores, 8) if on_gpu else min(cores // 4, 4)
