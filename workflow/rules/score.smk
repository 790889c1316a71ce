# Scores of wells and fields, detected cells, masks. One GPU a plate.
rule score:
    input:
        manifest=f"{RESULTS}/plates/{{plate}}.json",
        qc=f"{RESULTS}/qc/{{plate}}.parquet",
        # Those of a model that was made elsewhere are no input: where they lie does not count.
        models=FOLDS if MODEL == f"{RESULTS}/model" else [],
        novelty=NOVELTY,
    output:
        wells=f"{RESULTS}/wells/{{plate}}.parquet",
        fields=f"{RESULTS}/fields/{{plate}}.parquet",
        objects=f"{RESULTS}/objects/{{plate}}.parquet",
        features=[f"{RESULTS}/features/{{plate}}.parquet"] if NOVELTY else [],
    log:
        f"{RESULTS}/logs/score/{{plate}}.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/score-{{plate}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 8
    params:
        screen=config["screen"],
        store=lambda wildcards: f"{RESULTS}/plates/{wildcards.plate}.zarr",
        models=lambda wildcards, output: repeated("--models", [MODEL] * HAS_MODEL),
        novelty=lambda wildcards, output: [
            *repeated("--novelty", NOVELTY),
            *repeated("--encoder", [ENCODER] * DISCOVERS),
            *repeated("--features", output.features),
        ],
        # That a model that was made elsewhere has changed; of one that is made here the times of its files say so.
        model_files=None if MODEL == f"{RESULTS}/model" else digest_of(*FOLDS),
        compared=compared("score"),
        settings=settings("score", "dask"),
    shell:
        "wscnn score --screen {params.screen:q} --store {params.store:q} --quality {input.qc:q} {params.models:q}"
        " --wells {output.wells:q} --fields {output.fields:q} --objects {output.objects:q}"
        " {params.novelty:q} {params.settings:q} > {log:q} 2>&1"
