# Layers learned from all wells without labels, once for all folds.
rule encode:
    input:
        plates=expand(f"{RESULTS}/plates/{{plate}}.json", plate=IMAGES),
        qc=expand(f"{RESULTS}/qc/{{plate}}.parquet", plate=IMAGES),
    output:
        model=ENCODER,
        card=f"{RESULTS}/model/encoder.json",
    log:
        f"{RESULTS}/logs/encode.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/encode.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        # That the encoder to start from has changed.
        start_file=encoder_start(),
        screen=config["screen"],
        stores=repeated(
            "--store", [f"{RESULTS}/plates/{plate}.zarr" for plate in IMAGES]
        ),
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
        plates=expand(f"{RESULTS}/plates/{{plate}}.json", plate=IMAGES),
        qc=expand(f"{RESULTS}/qc/{{plate}}.parquet", plate=IMAGES),
        encoder=ENCODER,
    output:
        f"{RESULTS}/model/novelty.safetensors",
    log:
        f"{RESULTS}/logs/novelty.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/novelty.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        screen=config["screen"],
        controls=CONTROLS,
        # That its wells have changed.
        control_wells=lambda wildcards: control_wells(),
        stores=repeated(
            "--store", [f"{RESULTS}/plates/{plate}.zarr" for plate in IMAGES]
        ),
        quality=lambda wildcards, input: repeated("--quality", input.qc),
        compared=compared("discovery"),
        settings=settings("discovery"),
    shell:
        "wscnn novelty --screen {params.screen:q} --controls {params.controls:q} {params.stores:q} {params.quality:q}"
        " --encoder {input.encoder:q} --output {output:q} {params.settings:q} > {log:q} 2>&1"


# Each fold trains on a third of the control wells, selects on another, is tested on the last. One GPU a fold.
rule train:
    input:
        plates=expand(f"{RESULTS}/plates/{{plate}}.json", plate=IMAGES),
        qc=expand(f"{RESULTS}/qc/{{plate}}.parquet", plate=IMAGES),
        encoder=ENCODER if config["model"]["architecture"] == "encoder" else [],
    output:
        model=f"{RESULTS}/model/fold-{{fold}}.safetensors",
        card=f"{RESULTS}/model/fold-{{fold}}.json",
        history=f"{RESULTS}/model/history-{{fold}}.parquet",
    log:
        f"{RESULTS}/logs/train/fold-{{fold}}.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/train-fold-{{fold}}.tsv"
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
        stores=repeated(
            "--store", [f"{RESULTS}/plates/{plate}.zarr" for plate in IMAGES]
        ),
        quality=lambda wildcards, input: repeated("--quality", input.qc),
        encoder=lambda wildcards, input: repeated("--encoder", input.encoder),
        compared=compared("model", "train"),
        settings=settings("model", "train"),
    shell:
        "wscnn train --screen {params.screen:q} --fold {wildcards.fold} --controls {params.controls:q}"
        " {params.stores:q} {params.quality:q} {params.encoder:q} --output {output.model:q} {params.settings:q} > {log:q} 2>&1"


# The model card of all folds, for a person to read.
rule card:
    input:
        expand(f"{RESULTS}/model/fold-{{fold}}.json", fold=[0, 1, 2]),
    output:
        f"{RESULTS}/model/README.md",
    log:
        f"{RESULTS}/logs/train/card.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        models=lambda wildcards, output: str(Path(output[0]).parent),
    shell:
        "wscnn card --models {params.models:q} --output {output:q} > {log:q} 2>&1"
