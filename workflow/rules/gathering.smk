# The parameters besides `parts` are those of the jobs whose results are joined, so that the same changes lead to a new
# result. Those jobs themselves do not run again for a change: their outputs are removed when they are joined.
if JOBS > 1:

    rule gather_predictions:
        input:
            **sample_folder(part_inputs("<results>/{dataset}/{method}/seed{seed}/samples")),
            denoised=part_inputs("<results>/{dataset}/{method}/seed{seed}/denoised"),
            uncertainty=part_inputs("<results>/{dataset}/{method}/seed{seed}/uncertainty"),
            records=part_inputs("<results>/{dataset}/{method}/seed{seed}/prediction.json"),
        output:
            **sample_folder(directory("<results>/{dataset}/{method}/seed{seed}/samples")),
            denoised=directory("<results>/{dataset}/{method}/seed{seed}/denoised"),
            uncertainty=directory("<results>/{dataset}/{method}/seed{seed}/uncertainty"),
            record="<results>/{dataset}/{method}/seed{seed}/prediction.json",
        log:
            "<logs>/gather_predictions/{dataset}/{method}/seed{seed}.log",
        benchmark:
            "<benchmarks>/gather_predictions/{dataset}/{method}/seed{seed}.tsv"
        wildcard_constraints:
            method=names_of_methods(has_model),
        conda:
            "../envs/dvlae.yaml"
        params:
            parts=part_folders,
            settings=prediction_settings,
            revision=revision.PREDICTION,
        shell:
            "dvlae gather {params.parts:q} --output {output:q} 2>&1 | tee -i {log:q} || failed {log:q}"

    use rule gather_predictions as gather_methods with:
        input:
            denoised=part_inputs("<results>/{dataset}/{method}/seed{seed}/denoised"),
            records=part_inputs("<results>/{dataset}/{method}/seed{seed}/method.json"),
        output:
            denoised=directory("<results>/{dataset}/{method}/seed{seed}/denoised"),
            record="<results>/{dataset}/{method}/seed{seed}/method.json",
        log:
            "<logs>/gather_methods/{dataset}/{method}/seed{seed}.log",
        benchmark:
            "<benchmarks>/gather_methods/{dataset}/{method}/seed{seed}.tsv"
        wildcard_constraints:
            method=names_of_methods(divided),
        params:
            method=lambda wildcards: method_of(wildcards).given,
            file=lambda wildcards: method_of(wildcards).file.identity,
            settings=evaluation_settings,
            revision=revision.METHODS,

    use rule gather_predictions as gather_evaluations with:
        input:
            psnr=part_inputs("<results>/{dataset}/{method}/seed{seed}/psnr.csv"),
            records=part_inputs("<results>/{dataset}/{method}/seed{seed}/evaluation.json"),
        output:
            psnr="<results>/{dataset}/{method}/seed{seed}/psnr.csv",
            record="<results>/{dataset}/{method}/seed{seed}/evaluation.json",
        log:
            "<logs>/gather_evaluations/{dataset}/{method}/seed{seed}.log",
        benchmark:
            "<benchmarks>/gather_evaluations/{dataset}/{method}/seed{seed}.tsv"
        wildcard_constraints:
            method=names_of_methods(lambda method: True),
        params:
            settings=evaluation_settings,
            revision=revision.EVALUATION,

    # A rule that is made by `use rule` does not inherit `localrule:`.
    if not STORAGE:

        localrules:
            gather_predictions,
            gather_methods,
            gather_evaluations,


# What the tables and figures are made of.
PREDICTED = rules.predict.output if JOBS == 1 else rules.gather_predictions.output
FILTERED = rules.run_method.output
MEASURED = rules.evaluate.output if JOBS == 1 else rules.gather_evaluations.output
