ENCODED = config["model"]["architecture"] == "encoder"


# Layers pretrained on all wells without labels, once for all folds.
rule encode:
    input:
        plates=[SCREEN.manifest(plate) for plate in IMAGES],
        qc=QUALITIES,
    output:
        model=SCREEN.model.encoder,
        card=SCREEN.model.encoder_card,
    log:
        SCREEN.log("encode"),
    benchmark:
        SCREEN.benchmark("encode")
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        # Changes when the encoder to start from changes.
        start_file=encoder_start(),
        screen=config["screen"],
        stores=repeated("--store", map(SCREEN.plate, IMAGES)),
        quality=lambda wildcards, input: repeated("--quality", input.qc),
        channels=str(config["model"]["channels"]),
        compared=compared("encoder"),
        settings=settings("model", "encoder"),
    shell:
        "wscnn encode --screen {params.screen:q} {params.stores:q} {params.quality:q} --output {output.model:q}"
        " {params.settings:q} > {log:q} 2>&1"


# What cells of negative controls look like, once for all plates.
rule novelty:
    input:
        # It is made from all staged plates. Snakemake compares each file that it looks for with each input of the job
        # that makes it, so that plates listed here would take time in the square of their number.
        encoder=SCREEN.model.encoder,
    output:
        SCREEN.model.novelty,
    log:
        SCREEN.log("novelty"),
    benchmark:
        SCREEN.benchmark("novelty")
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        screen=config["screen"],
        controls=CONTROLS,
        # That its wells have changed.
        control_wells=lambda wildcards: control_wells(),
        stores=repeated("--store", map(SCREEN.plate, IMAGES)),
        quality=repeated("--quality", QUALITIES),
        compared=compared("discovery"),
        settings=settings("discovery"),
    shell:
        "wscnn novelty --screen {params.screen:q} --controls {params.controls:q} {params.stores:q} {params.quality:q}"
        " --encoder {input.encoder:q} --output {output:q} {params.settings:q} > {log:q} 2>&1"


# Each fold trains on a third of the control wells, selects on another, is tested on the last. One GPU per fold.
rule train:
    input:
        # The encoder, which is made from all staged plates, or these: see `novelty`.
        plates=[] if ENCODED else [SCREEN.manifest(plate) for plate in IMAGES],
        # Their sizes say how much memory the fields take.
        qc=QUALITIES,
        # A list also where it is one file: of a text `repeated` would take the letters.
        encoder=[SCREEN.model.encoder] if ENCODED else [],
    output:
        model=SCREEN.fold("{fold}"),
        card=SCREEN.model.card("{fold}"),
        history=SCREEN.model.history("{fold}"),
    log:
        SCREEN.log("train", "fold-{fold}"),
    benchmark:
        SCREEN.benchmark("train", "fold-{fold}")
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        controls=CONTROLS,
        # That its wells have changed.
        control_wells=lambda wildcards: control_wells(),
        # That the weights to start from have changed.
        start_files=lambda wildcards: start_files(wildcards.fold),
        screen=config["screen"],
        stores=repeated("--store", map(SCREEN.plate, IMAGES)),
        quality=repeated("--quality", QUALITIES),
        encoder=lambda wildcards, input: repeated("--encoder", input.encoder),
        compared=compared("model", "train"),
        settings=settings("model", "train"),
    shell:
        "wscnn train --screen {params.screen:q} --fold {wildcards.fold} --controls {params.controls:q}"
        " {params.stores:q} {params.quality:q} {params.encoder:q} --output {output.model:q} {params.settings:q} > {log:q} 2>&1"


# The model card of all folds, for a person to read.
rule card:
    input:
        [SCREEN.model.card(fold) for fold in range(N_FOLDS)],
    output:
        SCREEN.model.readme,
    log:
        SCREEN.log("train", "card"),
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        models=lambda wildcards, output: str(Path(output[0]).parent),
    shell:
        "wscnn card --models {params.models:q} --output {output:q} > {log:q} 2>&1"
