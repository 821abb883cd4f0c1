"""RecBole's side of `benchmarks.policies`: run by the interpreter that has RecBole; imports nothing
of abtest. Prints JSON.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"


def write_interactions(file: Path, folder: Path) -> None:
    """RecBole's own format from lines `user item item ...`; the place in the line is the time."""
    (folder / "bench").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for line in file.read_text().splitlines():
        user, *items = line.split()
        lines += [f"{user}\t{item}\t{place}" for place, item in enumerate(items)]
    (folder / "bench" / "bench.inter").write_text("\n".join(lines) + "\n")


def measure(name: str, loss: str, folder: Path, batches: int) -> dict[str, float]:
    """CPU seconds of training by the target, and of a full-ranking evaluation by the user, under
    RecBole's own defaults.
    """
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "loss_type": loss,
        "train_neg_sample_args": (
            None if loss == "CE" else {"distribution": "uniform", "sample_num": 1}
        ),
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "gpu_id": "",
        "use_gpu": False,
        "checkpoint_dir": str(folder),
        "show_progress": False,
    }
    config = Config(model=name, dataset="bench", config_dict=settings)
    init_seed(0, True)
    data = create_dataset(config)
    train, _, test = data_preparation(config, data)
    model = get_model(name)(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    model.train()
    targets, start = 0, time.process_time()
    for number, batch in enumerate(train):
        if number == batches:
            break
        trainer.optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        trainer.optimizer.step()
        targets += len(batch)
    trained = time.process_time() - start
    start = time.process_time()
    trainer.evaluate(test, load_best_model=False)
    evaluated = time.process_time() - start
    users = len(test.dataset)
    return {
        "targets_per_s": targets / trained,
        "epoch_targets": len(train.dataset),
        "epoch_s": len(train.dataset) * trained / targets,
        "users_per_s": users / evaluated,
    }


def main(file: str, jobs: str, batches: str) -> None:
    """Measure each `MODEL:LOSS` of the comma-separated `jobs`."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # RecBole logs to stdout
    with tempfile.TemporaryDirectory() as folder:
        write_interactions(Path(file), Path(folder))
        found = {
            job: measure(*job.split(":"), Path(folder), int(batches)) for job in jobs.split(",")
        }
    json.dump(found, out)
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
