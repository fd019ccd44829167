"""The command `earface`: a table of programs, each imported when it is chosen.

`earface ears train ...` is `python -m ear_teacher.train ...`. Nothing heavy is imported here: `earface --help` and a
mistyped word answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from earface.core.pipes import EXIT_CLOSED_PIPE, quiet_closed_pipe

EXIT_BAD_INPUT = 2  # as in earface.core.errors, which imports more than this file may


class Command(NamedTuple):
    module: str  # its main(argv) is the program and returns the exit code
    summary: str


GROUPS = {
    "ears": "a variational autoencoder over ear crops: features, search, identification, eigenears",
    "ears detector": "finds ears in photographs, and their landmarks",
    "ears recognize": "whose ear it is",
    "faces": "EdgeFace, a face recogniser, and its fine-tuning on low-resolution faces",
    "dsr": "super-resolution of very-low-resolution faces that keeps identity",
    "gallery": "the people of a gallery",
    "": "faces and ears against a gallery of known people; training runs; a look at this machine",
    "export": "trained models for other programs: ONNX and safetensors",
}

COMMANDS = {
    "ears prepare": Command("earface.data.prepare_ears", "photographs to training and validation files"),
    "ears annotations": Command("earface.data.convert_annotations", "boxes or landmarks to a detector's annotations"),
    "ears synthesize": Command("earface.synthetic.draw_ears", "synthetic ears with known factors and landmarks"),
    "ears scenes": Command("earface.synthetic.draw_scenes", "synthetic photographs with the boxes of their ears"),
    "ears check": Command("ear_teacher.model_summary", "build a model here: shapes, parameters, time, memory"),
    "ears train": Command("ear_teacher.train", "train an ear VAE"),
    "ears evaluate": Command("ear_teacher.evaluate", "a trained ear VAE beside PCA and HOG"),
    "ears extract": Command("ear_teacher.extract", "embeddings of ears; search and clusters"),
    "ears sample": Command("ear_teacher.sample", "new ears from a trained ear VAE, with an index"),
    "ears eigenears": Command("ear_teacher.eigenears.create_eigenears", "along which directions ears differ"),
    "ears detector train": Command("ear_teacher.detector.train", "train one, from an ear VAE's encoder"),
    "ears detector evaluate": Command("ear_teacher.detector.evaluate", "average precision and landmark errors"),
    "ears detector predict": Command("ear_teacher.detector.predict", "boxes, landmarks and crops of photographs"),
    "ears recognize train": Command("ear_teacher.recognition.train", "train one, from a face recogniser or an encoder"),
    "ears recognize evaluate": Command("ear_teacher.recognition.evaluate", "who is who among ears, beside HOG"),
    "ears recognize embed": Command("ear_teacher.recognition.embed", "embeddings of ears, to enrol and to compare"),
    "faces prepare": Command("earface.data.prepare_faces", "photographs to a set of aligned faces, split by identity"),
    "faces synthesize": Command("earface.synthetic.draw_faces", "synthetic faces with known identities and factors"),
    "faces embed": Command("facial_rec.embed", "embeddings of aligned faces"),
    "faces finetune": Command("facial_rec.finetune_edgeface", "fine-tune EdgeFace on low-resolution faces"),
    "faces evaluate": Command("facial_rec.evaluate", "face recognisers on low-resolution faces"),
    "dsr train": Command("dsr.train_dsr", "train a face super-resolver"),
    "dsr evaluate": Command("dsr.evaluate", "a trained super-resolver beside bicubic interpolation"),
    "dsr upscale": Command("dsr.upscale", "small faces to 128x128"),
    "enroll": Command("pipeline.enroll", "pictures of people to a gallery"),
    "identify": Command("pipeline.identify", "who is in these pictures, or unknown"),
    "gallery show": Command("pipeline.show_gallery", "who is in a gallery"),
    "gallery remove": Command("pipeline.remove_person", "people out of a gallery, with all embeddings of theirs"),
    "evaluate": Command("pipeline.evaluate_dataset", "probe, DSR, EdgeFace, gallery beside simpler configurations"),
    "export ears": Command("ear_teacher.export", "an ear VAE"),
    "export detector": Command("ear_teacher.detector.export", "an ear detector"),
    "export recognizer": Command("ear_teacher.recognition.export", "an ear recogniser and its landmarker"),
    "export dsr": Command("dsr.export", "a face super-resolver"),
    "export edgeface": Command("facial_rec.export", "a fine-tuned EdgeFace"),
    "report": Command("earface.reports.report", "a training run as one page: curves, pictures, settings, what next"),
    "compare": Command("earface.reports.compare", "training runs side by side: settings, metrics, curves"),
    "doctor": Command("earface.doctor.command", "what this machine has, and what to do about the rest"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the first words name (default: of sys.argv) on the arguments after them.

    Returns the program's exit code; 2 for an unknown or a missing word.
    """
    with quiet_closed_pipe():
        return _chosen(sys.argv[1:] if argv is None else list(argv))
    return EXIT_CLOSED_PIPE


def _chosen(arguments: Sequence[str]) -> int:
    group = ""
    for place, word in enumerate(arguments):
        name = f"{group} {word}".strip()
        if word in ("-h", "--help"):
            print(_help(group))
            return 0
        if word == "--version" and not group:
            from earface import __version__

            print(f"earface {__version__}")
            return 0
        if name in COMMANDS:
            return import_module(COMMANDS[name].module).main(arguments[place + 1 :]) or 0
        if not word or name not in GROUPS:
            print(f"error: {_unknown(group, word)}", file=sys.stderr)
            return EXIT_BAD_INPUT
        group = name
    print(_help(group), file=sys.stderr)
    return EXIT_BAD_INPUT


def _inside(group: str) -> list[str]:
    """The words that may follow, in the table's order."""
    start = f"{group} " if group else ""
    return list(dict.fromkeys(name.removeprefix(start).split()[0] for name in COMMANDS if name.startswith(start)))


def _help(group: str) -> str:
    """One line for each command of the group, and of the groups in it."""
    lines = [f"usage: {' '.join(filter(None, ('earface', group)))} COMMAND [options]"]
    if not group:
        lines += [
            "       earface --version",
            "",
            "Train and evaluate models for ear biometrics and very-low-resolution faces.",
        ]
    width = max(map(len, COMMANDS))
    for heading, summary in GROUPS.items():
        own = {name: each for name, each in COMMANDS.items() if name.rpartition(" ")[0] == heading}
        if f"{heading} ".startswith(f"{group} ".lstrip()):
            lines += ["", f"{heading or 'pipeline'}: {summary}"]
            lines += [f"  earface {name:{width}}  {each.summary}" for name, each in own.items()]
    return "\n".join([*lines, "", "earface COMMAND --help lists the options of a command."])


def _unknown(group: str, word: str) -> str:
    """The error for a word that stands for nothing after `group`, on one line."""
    from difflib import get_close_matches

    name = " ".join([*group.split(), *word.split()])
    known = _inside(group)
    last_words = {each: each.rpartition(" ")[2] for each in (*GROUPS, *COMMANDS) if each}
    near = [each for each, last in last_words.items() if last == word]  # in another group
    near = near or [f"{group} {each}".strip() for each in get_close_matches(word, known, n=1)]
    if not near:
        found = get_close_matches(word, set(last_words.values()), n=1)
        near = [each for each, last in last_words.items() if last in found]
    advice = f"did you mean {_either([f'earface {each}' for each in near])}?" if near else f"choose {_either(known)}"
    return f"earface {name}: no such command; {advice}"


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
