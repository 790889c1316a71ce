# One file to look at and to share.
rule report:
    input:
        f"{RESULTS}/hits.parquet",
        f"{RESULTS}/wells.parquet",
        f"{RESULTS}/plates.parquet",
        f"{RESULTS}/suspects.parquet",
        f"{RESULTS}/warnings.parquet",
        expand(
            f"{RESULTS}/{{table}}/{{plate}}.parquet",
            table=["qc", "fields", "objects"],
            plate=IMAGES,
        ),
        BASELINE,
    output:
        report(
            f"{RESULTS}/report.html", caption="../report/report.rst", category="Hits"
        ),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/logs/benchmarks/report.tsv"
    conda:
        "../../envs/environment.yaml"
    params:
        results=lambda wildcards, output: str(Path(output[0]).parent),
        models=lambda wildcards, output: MODEL,
        compared=compared("hits"),
        settings=settings("hits"),
    shell:
        "wscnn report --results {params.results:q} --models {params.models:q} --output {output:q} {params.settings:q}"
        " > {log:q} 2>&1"
