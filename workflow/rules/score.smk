# Scores of wells and fields, detected cells, masks. One GPU per plate.
rule score:
    input:
        manifest=SCREEN.manifest("{plate}"),
        qc=SCREEN.quality("{plate}"),
        # Files of a model that was trained elsewhere are not an input: their path does not count.
        models=FOLDS if MODEL == SCREEN.model else [],
        novelty=NOVELTY,
    output:
        wells=SCREEN.well_scores("{plate}"),
        fields=SCREEN.fields("{plate}"),
        objects=SCREEN.objects("{plate}"),
        features=[SCREEN.features("{plate}")] if NOVELTY else [],
    log:
        SCREEN.log("score", "{plate}"),
    benchmark:
        SCREEN.benchmark("score", "{plate}")
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        screen=config["screen"],
        store=lambda wildcards: str(SCREEN.plate(wildcards.plate)),
        models=lambda wildcards, output: repeated("--models", [MODEL.path] * HAS_MODEL),
        novelty=lambda wildcards, output: [
            *repeated("--novelty", NOVELTY),
            *repeated("--encoder", [SCREEN.model.encoder] * DISCOVERS),
            *repeated("--features", output.features),
        ],
        # Changes when a model that was trained elsewhere changes; for one trained here, file times show it.
        model_files=None if MODEL == SCREEN.model else digest_of(*FOLDS),
        compared=compared("score"),
        settings=settings("score", "dask"),
    shell:
        "wscnn score --screen {params.screen:q} --store {params.store:q} --quality {input.qc:q} {params.models:q}"
        " --wells {output.wells:q} --fields {output.fields:q} --objects {output.objects:q}"
        " {params.novelty:q} {params.settings:q} > {log:q} 2>&1"
