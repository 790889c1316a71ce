# Negative controls of all plates against those that the applied model was trained with (model.checkpoint).
rule drift:
    input:
        plates=[SCREEN.manifest(plate) for plate in IMAGES],
        qc=QUALITIES,
    output:
        SCREEN.table("drift"),
    log:
        SCREEN.log("drift"),
    benchmark:
        SCREEN.benchmark("drift")
    conda:
        "../../envs/environment.yaml"
    params:
        # Changes when the model or the control wells change.
        model_files=digest_of(*FOLDS),
        control_wells=lambda wildcards: control_wells(),
        controls=CONTROLS,
        stores=repeated("--store", map(SCREEN.plate, IMAGES)),
        quality=lambda wildcards, input: repeated("--quality", input.qc),
        models=lambda wildcards, output: str(MODEL.path),
        settings=settings("score"),
    shell:
        "wscnn drift --controls {params.controls:q} {params.stores:q} {params.quality:q} --models {params.models:q}"
        " --output {output:q} {params.settings:q} > {log:q} 2>&1"
