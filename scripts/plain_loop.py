"""The reference: transfer learning as one would write it by hand, without Headstart.

python scripts/plain_loop.py ROOT WEIGHTS --mode freeze|full|scratch --seeds 1 2 3 4 5 --size 96
                             [--network resnet18] [--augment]

ROOT holds train/<class>/* and val/<class>/*; WEIGHTS is a .safetensors file with timm's names. It prints the best
validation accuracy of each seed, to be compared with ``python train.py datamodule=folder …`` at the same settings:
``datamodule.augment=none``, or with --augment the default.
"""

import argparse
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2


def train(args: argparse.Namespace, seed: int) -> float:
    """Train once; returns the best validation accuracy over epochs."""
    torch.manual_seed(seed)
    about: Any = timm.get_pretrained_cfg(args.network)
    resize = v2.Resize((args.size, args.size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    crop = [v2.RandomResizedCrop(args.size, scale=(0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    scale = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(about.mean, about.std)]
    first = {"train": crop if args.augment else [resize], "val": [resize]}
    splits = {split: ImageFolder(f"{args.root}/{split}", v2.Compose([*first[split], *scale])) for split in first}
    # Decoding once is the kinder baseline; decoding in every epoch is what such loops do, and must do to augment.
    anew = args.decode_every_epoch or args.augment
    data: Any = splits if anew else {split: list(dataset) for split, dataset in splits.items()}
    workers = 2 if anew else 0
    model: Any = timm.create_model(args.network, num_classes=len(splits["train"].classes))
    model.get_classifier().reset_parameters()  # timm's own are so large for some networks that a head hardly learns
    if args.mode != "scratch":
        state = {k: v.float() for k, v in load_file(args.weights).items() if not k.startswith(f"{about.classifier}.")}
        state = {k: v.long() if k.endswith("num_batches_tracked") else v for k, v in state.items()}
        assert not model.load_state_dict(state, strict=False).unexpected_keys
    if args.mode == "freeze":
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=args.lr, weight_decay=0.01)
    loaders = {
        split: DataLoader(data[split], args.batch, shuffle=split == "train", num_workers=workers) for split in data
    }
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loaders["train"]))
    best = 0.0
    for _ in range(args.epochs):
        model.train(args.mode != "freeze")
        for images, targets in loaders["train"]:
            optimizer.zero_grad()
            F.cross_entropy(model(images), targets).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loaders["val"])
        best = max(best, right / len(data["val"]))
    return best


def main() -> None:
    """Run every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("weights")
    parser.add_argument("--mode", choices=("freeze", "full", "scratch"), default="freeze")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decode-every-epoch", action="store_true")
    parser.add_argument("--network", default="resnet18", help="timm's name")
    parser.add_argument("--augment", action="store_true", help="a random crop of at least half the area, and mirroring")
    args = parser.parse_args()
    scores = [train(args, seed) for seed in args.seeds]
    print(f"{args.mode}: {' '.join(f'{s:.4f}' for s in scores)}  mean {sum(scores) / len(scores):.4f}")


if __name__ == "__main__":
    main()
