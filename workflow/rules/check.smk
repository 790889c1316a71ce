# All that can be known before the first job: config, tables and file names agree. Not a rule, because Snakemake does
# not look for changed settings below a job that runs again: results would stay as they were under the former ones.
LAYOUT, CONTROLS = f"{RESULTS}/layout.parquet", f"{RESULTS}/controls.parquet"


def start():
    """Lock the screen's results for this run and check the screen."""
    from wscnn.claim import lock

    global HELD
    HELD = valid(lock, Path(RESULTS))
    check_once()


onstart:
    start()


# Of a module Snakemake ignores `onstart`: it is put before that of the workflow that includes this one.
if not workflow.modifier.is_main_snakefile():
    including = workflow._onstart

    def start_both(log):
        start()
        including(log)

    workflow._onstart = start_both


def check_once():
    """Check the screen unless it was checked as it is now, and write its layout and controls for the jobs."""
    # Every job of a cluster reads this file, too, and needs none of these.
    from wscnn.atomic import atomic_path
    from wscnn.check import check_config, write_screen
    from wscnn.claim import claim

    tables = [Path(config[name]).read_bytes() for name in ("plates", "layout")]
    parts = [json.dumps(config, sort_keys=True).encode(), *tables]
    digest = sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
    seen = Path(f"{RESULTS}/checked.txt")
    made = [Path(LAYOUT), Path(CONTROLS)]
    if (
        all(path.is_file() for path in [*made, seen])
        and seen.read_text().strip() == digest
    ):
        return
    screen = valid(check_config, config, CONFIG_FILES)
    for warning in screen.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    write_screen(screen, *made)
    claim(Path(RESULTS), CONFIG_FILES)
    with atomic_path(seen) as partial:
        partial.write_text(digest + "\n")
