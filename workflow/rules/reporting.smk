rule tables:
    input:
        psnr=all_runs(rules.evaluate.output.psnr),
        models=all_runs(rules.train.output.model, trained=True),
    output:
        summary=report("<results>/tables/summary.csv", category="Tables", caption="../report/summary.rst"),
        receptive_field=report(
            "<results>/tables/receptive_field.csv", category="Tables", caption="../report/receptive_field.rst"
        ),
        timing=report("<results>/tables/timing.csv", category="Tables", caption="../report/timing.rst"),
        lists=expand("<results>/tables/{table}.csv", table=["psnr", "per_image", "comparisons", "provenance"]),
        typeset=expand(
            "<results>/tables/{table}.{ext}",
            table=["summary", "receptive_field", "per_image", "comparisons"],
            ext=["md", "tex", "html"],
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
        revision=revision.EVALUATION,
    shell:
        "dvlae tables {input.psnr:q} --output {params.folder:q} > {log:q} 2>&1"


rule figures:
    input:
        psnr=all_runs(rules.evaluate.output.psnr),
        denoised=all_runs(rules.predict.output.denoised),
        models=all_runs(rules.train.output.model, trained=True),
        images=expand(rules.prepare.output.images, dataset=DATASETS),
    output:
        panels=shown_figures("panel", "2 Images", "Noisy, denoised, clean"),
        calibration=shown_figures("calibration", "2 Images", "Predicted against true errors"),
        paired=shown_figures("paired_psnr", "1 Results", "PSNR of each image by each method"),
        ablation=shown_figures("receptive_field", "1 Results", "PSNR over receptive fields"),
        time=shown_figures("training_time", "1 Results", "PSNR over minutes of training"),
        noise=shown_figures("noise_autocorrelation", "3 Noise", "Correlation of the noise and of what was removed"),
        training=shown_figures("training_curves", "4 Training", "Training curves"),
        levels=shown_figures("kl_per_level", "4 Training", "Information in each level of the ladder"),
        vector=[f"<results>/figures/{name}.svg" for names in FIGURES.values() for name, _ in names],
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
        settings=figure_settings(),
        revision=revision.EVALUATION,
    shell:
        "dvlae figures {input.psnr:q} --output {params.folder:q} --images {params.images:q}"
        " --settings {params.settings:q} > {log:q} 2>&1"
