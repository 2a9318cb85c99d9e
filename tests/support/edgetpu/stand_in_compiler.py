"""Stands in for `edgetpu_compiler`: prints a recorded log, and writes a model that only an Edge TPU can run."""

from __future__ import annotations

import sys
from pathlib import Path

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def main(log: str, calls: str, in_file: bool) -> None:
    """Answers `--version`, or compiles `-s -o FOLDER MODEL`.

    Args:
        log: A file of `transcripts`, without its ending.
        calls: A file that gets a line for each model.
        in_file: Whether only the log file says what became of the model.
    """
    text = (TRANSCRIPTS / f"{log}.txt").read_text(encoding="utf-8")
    if sys.argv[1:] == ["--version"]:
        print(text.splitlines()[0])
        return
    show, option, folder, model = sys.argv[1:]
    assert (show, option) == ("-s", "-o")
    assert Path(model).read_bytes()[4:8] == b"TFL3"
    with Path(calls).open("a", encoding="utf-8") as file:
        file.write("compiled\n")
    shown, written = (text.splitlines()[0], text) if in_file else (text, text[text.find("Operator ") :])
    print(shown)
    if in_file or "Operator " in text:
        (Path(folder) / "model_edgetpu.log").write_text(written, encoding="utf-8")
    if "Model compiled successfully" not in text:
        sys.exit(1)
    from tests.support.edgetpu import compiled_model

    (Path(folder) / "model_edgetpu.tflite").write_bytes(compiled_model())
