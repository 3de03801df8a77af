"""What `refloom inspect` and `refloom browse` do, between the command line and the library."""

import argparse
import sys

from refloom.schemas import copies, strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.tables import TABLES


def inspect(options: argparse.Namespace) -> int:
    """`refloom inspect DATASET`: sizes, and one row printed and drawn."""
    from refloom.viewing.browse import inspection

    if options.table is not None and options.table not in TABLES:
        raise Refused(f"there is no table {options.table}: one of {', '.join(TABLES)}")
    dataset = Dataset(absolute_url(options.dataset))
    sizes = inspection.sizes(dataset)
    found = inspection.find(dataset, options.id, options.table)
    if options.json:
        print(strict.dumps({"tables": sizes, **inspection.as_json(found)}, indent=1))
    else:
        for line in [*inspection.size_lines(sizes), "", *inspection.row_lines(found)]:
            print(line)
    if options.draw is not None:
        from refloom.viewing.browse.png import draw

        folder, _, name = absolute_url(options.draw).rpartition("/")
        Folder(folder or "/").write(name, draw(dataset, found))
        copies.note(dataset.folder, "drawing", f"{folder}/{name}")
        print(f"drawn: {options.draw}", file=sys.stderr if options.json else sys.stdout)
    return 0


def browse(options: argparse.Namespace) -> int:
    """`refloom browse DATASET`: serves a page until it is stopped; 0 on Ctrl-C."""
    from refloom.viewing.browse.server import Browser

    if not 0 <= options.port < 65536:
        raise Refused("--port must be between 0 and 65535; 0 takes a free one")
    if options.labeller is not None and not options.label:
        raise Refused("--labeller says who judges: give --label too")
    dataset = Dataset(absolute_url(options.dataset))
    try:
        server = Browser(dataset, options.host, options.port, label=options.label, labeller=options.labeller)
    except OSError as error:
        raise Refused(
            f"cannot listen on {options.host}:{options.port} ({error.strerror or error}): give another --port or --host"
        ) from error
    with server:
        page = f"{server.address}label" if options.label else server.address
        print(f"{server.index.sentence()}\n{page}  (Ctrl-C stops it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    if server.labelling is not None:
        left = server.labelling.close()
        print(f"{server.labelling.saved:,} judgements saved", *([left] if left else []), sep="\n")
    return 0
