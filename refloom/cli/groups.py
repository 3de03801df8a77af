"""What `refloom --help` shows: every command under what it is for, a line each. Imports nothing that takes time."""

import argparse

GROUPS: dict[str, dict[str, str]] = {
    "data": {
        "ingest": "take pictures and annotations from a source into a dataset",
        "status": "rows, units and items of every stage, and why some were left out",
        "verify": "open, hash and count everything again",
        "mend": "make again what verify found damaged",
        "relink": "say where linked pictures lie that have moved",
        "sample-data": "small COCO, YouTube-VIS and SA-1B trees to try things on",
    },
    "curation": {
        "curate": "measure, find faces, embed, score, select, group, split, compose",
        "fit-quality": "weights of object quality out of your own judgements",
    },
    "datasets": {
        "subset": "a dataset of a part: ids, conditions, a split, a share",
        "merge": "one dataset out of several",
        "tag": "keep a state of a dataset under a name",
        "diff": "what changed between two states, and why",
    },
    "sharing": {
        "publish": "write a dataset as a publication, and push it",
        "rehydrate": "join a publication without pictures with your copy of the source",
        "export": "write a dataset in another format, or for another trainer",
        "takedown": "take pictures out of a dataset, and keep them out",
    },
    "looking": {
        "report": "one page: what was kept and what not, with the thresholds",
        "browse": "a local page to search, look at and label a dataset",
        "inspect": "sizes of every table, and one row printed and drawn",
    },
    "training": {
        "cache": "compute once what a recipe keeps frozen",
        "train": "train an adapter by a recipe",
        "heldout": "whether an adapter reads its references",
    },
    "pictures": {
        "generate": "pictures of a prompt with references in them",
        "edit": "references put into a part of a picture",
        "convert": "a published checkpoint as refloom's files, or as diffusers'",
        "ui": "a local page to generate on",
        "evaluate": "a benchmark's pictures, measured",
    },
    "more": {
        "models": "the models that refloom knows, and `models get` to fetch one",
        "demo": "the whole road on sample data, in minutes",
    },
}
"""Title to command to a line about it; a command that is not here is shown under the last title."""


class GroupedParser(argparse.ArgumentParser):
    """The parser of the whole command line; its help lists the commands in groups."""

    def format_help(self) -> str:
        """See `argparse.ArgumentParser.format_help`."""
        (commands,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, lines in shown(commands).items():
            formatter.start_section(title)
            formatter.add_text("\n".join(f"{name:12} {text}" for name, text in lines.items()))
            formatter.end_section()
        formatter.add_text("`refloom COMMAND --help` has examples and every option")
        formatter.start_section("options")
        formatter.add_arguments([action for action in self._actions if action is not commands])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def shown(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> dict[str, dict[str, str]]:
    """Title to command to a line about it, of the commands that there are."""
    groups = {
        title: {name: text for name, text in lines.items() if name in commands.choices}
        for title, lines in GROUPS.items()
    }
    known = {name for lines in GROUPS.values() for name in lines}
    last = groups[list(groups)[-1]]
    for action in commands._choices_actions:
        if action.dest not in known:
            last[action.dest] = (action.help or "").partition(". ")[0].rstrip(".")
    return {title: lines for title, lines in groups.items() if lines}
