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
        panels=report(
            expand("<results>/figures/panel_{dataset}.png", dataset=DATASETS),
            category="Figures",
            caption="../report/panel.rst",
        ),
        noise=report(
            expand("<results>/figures/noise_autocorrelation_{dataset}.png", dataset=DATASETS),
            category="Figures",
            caption="../report/noise_autocorrelation.rst",
        ),
        training=report(
            expand("<results>/figures/training_curves_{dataset}.png", dataset=DATASETS),
            category="Figures",
            caption="../report/training_curves.rst",
        ),
        levels=report(
            expand("<results>/figures/kl_per_level_{dataset}.png", dataset=DATASETS),
            category="Figures",
            caption="../report/kl_per_level.rst",
        ),
        calibration=report(calibration_figures("png"), category="Figures", caption="../report/calibration.rst"),
        ablation=report(ablation_figures("png"), category="Figures", caption="../report/receptive_field.rst"),
        vector=[
            *expand(
                "<results>/figures/{figure}_{dataset}.svg",
                figure=["panel", "noise_autocorrelation", "training_curves", "kl_per_level"],
                dataset=DATASETS,
            ),
            *calibration_figures("svg"),
            *ablation_figures("svg"),
        ],
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
