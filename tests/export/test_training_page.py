"""docs/detectors.md and the benchmark that runs its blocks."""

from benchmarks.export_training import PAGE, blocks_of


def test_the_page_has_what_the_benchmark_runs():
    blocks = list(blocks_of(PAGE.read_text(encoding="utf-8")))  # raises for what it would replace and does not find
    assert blocks[0][1] == "sh" and "adiff export" in blocks[0][2] and len(blocks) > 5
    assert all(".from_pretrained" not in code and "DEFAULT" not in code for _, _, code in blocks)
    for _, language, code in blocks:
        if language == "python":
            compile(code, PAGE.name, "exec")
