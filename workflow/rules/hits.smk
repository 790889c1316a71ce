# Normalised scores, p and q values, one row per perturbation and phenotype.
rule hits:
    input:
        wells=expand(f"{RESULTS}/wells/{{plate}}.parquet", plate=IMAGES),
    output:
        hits=f"{RESULTS}/hits.parquet",
        wells=f"{RESULTS}/wells.parquet",
        plates=f"{RESULTS}/plates.parquet",
        suspects=f"{RESULTS}/suspects.parquet",
        warnings=f"{RESULTS}/warnings.parquet",
    log:
        f"{RESULTS}/logs/hits.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/hits.tsv"
    conda:
        "../../envs/environment.yaml"
    params:
        # What the layout that `check` writes is made of.
        layout_digest=lambda wildcards: layout_digest(),
        compared=compared("hits"),
        layout=LAYOUT,
        # What `check` and the cards of the folds warn of.
        warnings=WARNINGS,
        models=repeated("--models", [MODEL] * HAS_MODEL),
        wells=lambda wildcards, input: repeated("--wells", input.wells),
        output=lambda wildcards, output: str(Path(output.hits).parent),
        # Which plates have cells of another size.
        scale=lambda wildcards, output: repeated("--scale", SCALE),
        settings=settings("hits"),
    shell:
        "wscnn hits {params.wells:q} --layout {params.layout:q} --warnings {params.warnings:q} {params.models:q}"
        " --output {params.output:q} {params.scale:q} {params.settings:q} > {log:q} 2>&1"
