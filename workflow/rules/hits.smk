# Normalised scores, p and q values, one row per perturbation and phenotype.
rule hits:
    input:
        wells=[SCREEN.well_scores(plate) for plate in IMAGES],
        drift=DRIFT,
    output:
        hits=SCREEN.table("hits"),
        wells=SCREEN.table("wells"),
        plates=SCREEN.table("plates"),
        suspects=SCREEN.table("suspects"),
        doses=SCREEN.table("doses"),
        warnings=SCREEN.table("warnings"),
    log:
        SCREEN.log("hits"),
    benchmark:
        SCREEN.benchmark("hits")
    conda:
        "../../envs/environment.yaml"
    params:
        # Content of the layout that `check` writes.
        layout_digest=lambda wildcards: layout_digest(),
        compared=compared("hits"),
        layout=LAYOUT,
        # Warnings of `check` and of the cards of the folds.
        warnings=WARNINGS,
        models=repeated("--models", [MODEL.path] * HAS_MODEL),
        wells=lambda wildcards, input: repeated("--wells", input.wells),
        output=lambda wildcards, output: str(Path(output.hits).parent),
        # Which plates have cells of another size.
        scale=lambda wildcards, output: repeated("--scale", SCALE),
        drift=lambda wildcards, input: repeated("--drift", DRIFT),
        settings=settings("hits"),
    shell:
        "wscnn hits {params.wells:q} --layout {params.layout:q} --warnings {params.warnings:q} {params.models:q}"
        " --output {params.output:q} {params.scale:q} {params.drift:q} {params.settings:q} > {log:q} 2>&1"
