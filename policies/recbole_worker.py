"""Serves one RecBole checkpoint over stdin and stdout; run by `policies.recbole` in the interpreter
that has RecBole.

Imports nothing of abtest. A message is 8 bytes of length, then an array in npy format. First the
worker sends the item tokens (unicode, `[n]`, in the order of RecBole's ids) and the longest list
`[1]`; then it answers ids `[R, L + 1]` (each row the length, then RecBole's item ids, left-aligned)
by scores float32 `[R, n]`.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules have the names of packages

import io
import os
import struct
from typing import Any, BinaryIO

import numpy as np


def send(stream: BinaryIO, array: Any) -> None:
    """Write one array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    stream.write(struct.pack("<q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one array; None at the end of the stream."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    return np.lib.format.read_array(
        io.BytesIO(stream.read(struct.unpack("<q", head)[0])), allow_pickle=False
    )


def main(checkpoint: str) -> None:
    """Load the checkpoint with its data set, then answer until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # RecBole logs to stdout
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = (
        "1"  # a RecBole checkpoint holds its configuration as an object
    )
    import torch
    from recbole.data.interaction import Interaction
    from recbole.quick_start import load_data_and_model

    torch.set_num_threads(1)
    config, model, dataset, _, _, _ = load_data_and_model(checkpoint)
    model.eval()
    tokens = dataset.field2id_token[dataset.iid_field]
    longest = int(config["MAX_ITEM_LIST_LENGTH"])
    lists = config["ITEM_LIST_LENGTH_FIELD"]
    send(answers, np.asarray(tokens, dtype=np.str_))
    send(answers, np.array([longest]))
    while (asked := receive(sys.stdin.buffer)) is not None:
        rows = {
            dataset.iid_field + config["LIST_SUFFIX"]: torch.from_numpy(asked[:, 1:]),
            lists: torch.from_numpy(asked[:, 0].copy()),
            dataset.uid_field: torch.zeros(len(asked), dtype=torch.int64),
        }
        with torch.no_grad():
            scores = model.full_sort_predict(Interaction(rows).to(config["device"]))
        send(answers, scores.view(len(asked), -1).float().cpu().numpy())


if __name__ == "__main__":
    main(sys.argv[1])
