# Scores of wells and fields, detected cells, masks. One GPU per plate.
rule score:
    input:
        manifest=SCREEN.manifest("{plate}"),
        qc=SCREEN.quality("{plate}"),
        # Those of a model that was made elsewhere are no input: where they lie does not count.
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
        # That a model that was made elsewhere has changed; of one that is made here the times of its files say so.
        model_files=None if MODEL == SCREEN.model else digest_of(*FOLDS),
        compared=compared("score"),
        settings=settings("score", "dask"),
    shell:
        "wscnn score --screen {params.screen:q} --store {params.store:q} --quality {input.qc:q} {params.models:q}"
        " --wells {output.wells:q} --fields {output.fields:q} --objects {output.objects:q}"
        " {params.novelty:q} {params.settings:q} > {log:q} 2>&1"
