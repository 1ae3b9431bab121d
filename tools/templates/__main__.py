"""Write the graphs of the template browser into workflows/: `python -m tools.templates`."""

import json

from .graphs import GRAPHS, file_name
from .schema import ROOT, load_schema


def main() -> None:
    """Write every graph; thumbnails beside them stay."""
    schema = load_schema()
    for graph in GRAPHS:
        text = json.dumps(graph(schema).to_json(), indent=1, ensure_ascii=False)
        (ROOT / "workflows" / f"{file_name(graph)}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
