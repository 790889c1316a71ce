# One self-contained file to read and share.
rule report:
    input:
        SCREEN.table("hits"),
        SCREEN.table("wells"),
        SCREEN.table("plates"),
        SCREEN.table("suspects"),
        SCREEN.table("warnings"),
        [
            of(plate)
            for of in (SCREEN.quality, SCREEN.fields, SCREEN.objects)
            for plate in IMAGES
        ],
        BASELINE,
    output:
        report(SCREEN.report, caption="../report/report.rst", category="Hits"),
    log:
        SCREEN.log("report"),
    benchmark:
        SCREEN.benchmark("report")
    conda:
        "../../envs/environment.yaml"
    params:
        results=lambda wildcards, output: str(Path(output[0]).parent),
        models=lambda wildcards, output: str(MODEL.path),
        compared=compared("hits"),
        settings=settings("hits"),
    shell:
        "wscnn report --results {params.results:q} --models {params.models:q} --output {output:q} {params.settings:q}"
        " > {log:q} 2>&1"
