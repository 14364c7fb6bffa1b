"""Writes nailseg/weights/NAME from a finished run: `python experiments/ship.py nailseg-b0 runs/nailseg_b0`.

The weights have half precision; the card has the run's test numbers and the attribution that the data's
licence requires. The folder must not exist.
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file, save_file

import nailseg
from nailseg.checkpoints import model_folder
from nailseg.model_info import SHIPPED

DATA = '"nails_segmentation-vsf0o" version 1, workspace s-workspace-jfczg, Roboflow Universe, CC BY 4.0'
STARTS = {
    "nailseg-b0": "random weights",
    "nailseg-lite0": "the ImageNet weights of EfficientNet-Lite0 (Apache-2.0)",
}
LIMITS = {"nailseg-b0": "nailseg_b0_limits.md", "nailseg-lite0": "lite0/limits.md"}
LICENCE = "Apache-2.0; the data's CC BY 4.0 asks you to name the data set above"


def halve(file: Path) -> None:
    """Stores the weights in float16, which halves the file; they are loaded as float32."""
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=SHIPPED)
    parser.add_argument("run", type=Path, help="run folder with model/ and test/")
    options = parser.parse_args()
    network = model_folder.open_network(options.run / "model")
    info = model_folder.read_model_info(options.run / "model")
    weights = f"{options.name}, trained by nailseg from {STARTS[options.name]} on {DATA}"
    tested = options.run / "test" / "metrics.json"
    if not info.metrics.get("intervals") and tested.exists():  # of a model that `nailseg test` has tested
        info.metrics = json.loads(tested.read_text())
    info.origin = {"weights": weights, "licence": LICENCE}
    folder = Path(nailseg.__file__).parent / "weights" / options.name
    model_folder.save_model_folder(folder, network, info)
    halve(folder / "model.safetensors")
    card = folder / "README.md"
    card.write_text(card.read_text() + (Path(__file__).parent / LIMITS[options.name]).read_text())
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"{folder}: {size:.1f} MB. Test it: nailseg test --model.weights {options.name} --data.csv CSV")


if __name__ == "__main__":
    main()
