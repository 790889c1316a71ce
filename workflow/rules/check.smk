# Checks before the first job: config, tables and file names agree. This is not a rule: Snakemake does not re-evaluate
# parameters of downstream jobs when an upstream job reruns, so results would keep the old settings.
LAYOUT, CONTROLS = str(SCREEN.table("layout")), str(SCREEN.table("controls"))
WARNINGS = str(SCREEN.check_warnings)


def start():
    """Lock the screen's results for this run and check the screen."""
    from wscnn.preflight.claim import lock

    global HELD
    HELD = valid(lock, SCREEN.path)
    check_once()
    check_images_are_there()
    put_aside_plates()
    watch().keep()


def check_images_are_there():
    """Stop before a job that needs raw images that no longer exist: it would only delete its present output."""
    from wscnn.acquisitions.base import entry_is
    from wscnn.core.errors import listed

    made = {
        str(of(plate)): plate
        for plate in IMAGES
        for of in (SCREEN.index, SCREEN.manifest)
    }
    outputs = [str(path) for job in workflow.dag.needrun_jobs() for path in job.output]
    needed = {made[path] for path in outputs if path in made}
    gone = [
        plate for plate in sorted(needed) if not entry_is(Path(IMAGES[plate]).exists)
    ]
    if gone:
        raise WorkflowError(
            f"Raw images are gone ({listed(gone)}: {len(gone)} plates), but "
            "these plates have to be staged again, since settings, excluded wells or the program changed (snakemake -n "
            "says which); put the images back, or undo the change"
        )


def put_aside_plates():
    """Move the results of plates that left the screen out of the way: tables are read by folder."""
    from wscnn.preflight.left import put_aside

    for plate in put_aside(SCREEN.path, IMAGES):
        print(
            f"plate '{plate}' left the screen: its results are in {SCREEN.left(plate).path}",
            file=sys.stderr,
        )


onstart:
    start()


# Snakemake ignores `onstart` of a module: it is put before that of the workflow that includes this one.
if not workflow.modifier.is_main_snakefile():
    including = workflow._onstart

    def start_both(log):
        start()
        including(log)

    workflow._onstart = start_both


def check_once():
    """Check the screen unless it is unchanged since the last check, and write its layout and controls for the jobs."""
    # Every job of a cluster reads this file, too, and needs none of these.
    from wscnn.core.atomic import atomic_path
    from wscnn.preflight.check import check_config, write_screen
    from wscnn.preflight.claim import claim
    from wscnn.core.provenance import keep_run

    tables = [Path(config[name]).read_bytes() for name in ("plates", "layout")]
    states = json.dumps(watch().states, sort_keys=True, allow_nan=False)
    parts = [
        json.dumps(config, sort_keys=True, allow_nan=False).encode(),
        states.encode(),
        *tables,
    ]
    digest = sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
    seen = SCREEN.checked
    # Without an index, images may have been removed since.
    made = [Path(LAYOUT), Path(CONTROLS), Path(WARNINGS)]
    made += [SCREEN.index(plate) for plate in IMAGES]
    if (
        all(path.is_file() for path in [*made, seen])
        and seen.read_text().strip() == digest
    ):
        return
    screen = valid(lambda: check_config(config, configs=CONFIG_FILES))
    for warning in screen.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    keep_run(config, SCREEN.path)
    write_screen(screen, *made[:3])
    claim(SCREEN.path, CONFIG_FILES)
    with atomic_path(seen) as partial:
        partial.write_text(digest + "\n")
