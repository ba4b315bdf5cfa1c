rule tables:
    input:
        psnr=all_runs(MEASURED.psnr),
        models=all_runs(rules.train.output.model, trained),
        records=all_runs(MEASURED.record) + all_runs(PREDICTED.record, has_model) + all_runs(FILTERED.record, has_file),
        noise=all_datasets([rules.diagnose.output.found]),
    output:
        summary=reported("<results>/tables/summary.html", "summary", "1 Results", "Table: every method"),
        methods=reported("<results>/tables/methods.html", "methods", "1 Results", "Table: how every method was run"),
        measures=reported("<results>/tables/measures.html", "measures", "1 Results", "Table: what a PSNR does not say"),
        receptive_field=reported(
            "<results>/tables/receptive_field.html", "receptive_field", "1 Results", "Table: every receptive field"
        ),
        comparisons=reported(
            "<results>/tables/comparisons.html",
            "comparisons",
            "1 Results",
            "Table: is one method better than another?",
        ),
        per_image=reported("<results>/tables/per_image.html", "per_image", "1 Results", "Table: every image"),
        timing=reported("<results>/tables/timing.csv", "timing", "4 Training", "Table: every training (CSV)"),
        provenance=reported(
            "<results>/tables/provenance.csv", "provenance", "4 Training", "Table: how every number was made (CSV)"
        ),
        psnr="<results>/tables/psnr.csv",
        noise="<results>/tables/noise.csv",
        typeset=expand(
            "<results>/tables/{table}.{ext}",
            table=report_names.TYPESET_TABLES,
            ext=["csv", "md", "tex"],
        ),
    log:
        "<logs>/tables.log",
    benchmark:
        "<benchmarks>/tables.tsv"
    localrule: True
    conda:
        "../envs/dvlae.yaml"
    params:
        folder=lambda wildcards, output: str(Path(output.summary).parent),
        noise=lambda wildcards, input: [f"{name}={found}" for name, found in zip(DATASETS, input.noise)],
        published=published_results(),
        revision=revision.EVALUATION,
    shell:
        "dvlae tables {input.psnr:q} --output {params.folder:q} --noise {params.noise:q} --published {params.published:q}"
        " > {log:q} 2>&1 || failed {log:q}"


rule figures:
    input:
        psnr=all_runs(MEASURED.psnr),
        denoised=all_runs(PREDICTED.denoised),
        methods=all_runs(FILTERED.record, has_file),
        uncertainty=all_runs(PREDICTED.uncertainty, has_model),
        models=all_runs(rules.train.output.model, trained),
        images=all_datasets([rules.prepare.output.images]),
        noise=all_datasets([rules.diagnose.output.found]),
        targets=all_datasets([rules.register.output.targets]),
    output:
        panels=reported_figures("panel", "2 Images", "Figure: noisy, denoised, clean"),
        side_by_side=reported_figures("side_by_side", "2 Images", "Figure: one part of an image by every method"),
        calibration=reported_figures("calibration", "2 Images", "Figure: predicted against true errors"),
        paired=reported_figures("paired_psnr", "1 Results", "Figure: PSNR of each image by each method"),
        ablation=reported_figures("receptive_field", "1 Results", "Figure: PSNR over receptive fields"),
        time=reported_figures("quality_over_time", "1 Results", "Figure: PSNR over the time of training and denoising"),
        noise=reported_figures("removed_noise", "3 Noise", "Figure: correlation of the noise and of what was removed"),
        spectra=reported_figures("spectra", "3 Noise", "Figure: spectra of the denoised and the clean images"),
        training=reported_figures("training_curves", "4 Training", "Figure: training curves"),
        levels=reported_figures("kl_per_level", "4 Training", "Figure: information in each level of the ladder"),
        vector=[f"<results>/figures/{figure.name}.svg" for figure in FIGURES],
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    localrule: True
    conda:
        "../envs/dvlae.yaml"
    params:
        folder=lambda wildcards, output: str(Path(output.panels[0]).parent),
        images=lambda wildcards, input: [f"{name}={folder}" for name, folder in zip(DATASETS, input.images)],
        noise=lambda wildcards, input: [f"{name}={found}" for name, found in zip(DATASETS, input.noise)],
        targets=lambda wildcards, input: [f"{name}={table}" for name, table in zip(DATASETS, input.targets)],
        settings=figure_settings(),
        revision=revision.EVALUATION,
    shell:
        "dvlae figures {input.psnr:q} --output {params.folder:q} --images {params.images:q}"
        " --noise {params.noise:q} --targets {params.targets:q} --settings {params.settings:q} > {log:q} 2>&1 || failed {log:q}"
