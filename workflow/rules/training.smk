rule train:
    input:
        unpack(suggested_field),
        **start_model(),
        patches=rules.extract_patches.output.patches,
    output:
        model=directory("<results>/{dataset}/{method}/seed{seed}/model"),
    log:
        "<logs>/train/{dataset}/{method}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train/{dataset}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        method=names_of_methods(trained),
    conda:
        "../envs/dvlae.yaml"
    threads: training_threads
    resources:
        gpu=GPUS * config["devices"],
        # These are not params, so that a change of the machine reruns nothing. They are not {config[...]} in the command
        # either, because Snakemake's lint accepts only a rule's own names there.
        device=config["device"],
        devices=config["devices"],
        workers=config["training"]["workers"],
        mem_mb=training_memory_mb,
        runtime=training_runtime,
        tensorboard="tensorboard" if config["tensorboard"] else "no-tensorboard",
    params:
        settings=training_settings,
        receptive_field=lambda wildcards: method_of(wildcards).receptive_field,
        noise_direction=lambda wildcards: DATASETS[wildcards.dataset].noise_direction,
        # This folder is not an output, so that Snakemake keeps it and an interrupted training can continue. `predict`
        # removes it, because Snakemake has then recorded the model as complete.
        checkpoints=lambda wildcards, output: str(Path(output.model).with_name("checkpoints")),
        # What depends on `input` is not compared with that of earlier results.
        start=lambda wildcards, input: option("--start-from", SETTINGS.start_from),
        noise=lambda wildcards, input: option("--noise", input.get("noise")),
        revision=revision.TRAINING,
    message:
        "Training {wildcards.method} on {wildcards.dataset}, seed {wildcards.seed}; log in {log}"
    shell:
        "dvlae train {input.patches:q} {output.model:q} --receptive-field {params.receptive_field}"
        " --noise-direction {params.noise_direction} --seed {wildcards.seed} --checkpoints {params.checkpoints:q}"
        " {params.noise:q} {params.start:q}"
        " --settings {params.settings:q} --device {resources.device} --devices {resources.devices}"
        " --cores {threads} --workers {resources.workers} --{resources.tensorboard} 2>&1 | tee -i {log:q} || failed {log:q}"


rule predict:
    input:
        model=model_to_use,
        images=rules.prepare.output.images,
    output:
        **sample_folder(part_output("<results>/{dataset}/{method}/seed{seed}/samples", directory)),
        denoised=part_output("<results>/{dataset}/{method}/seed{seed}/denoised", directory),
        uncertainty=part_output("<results>/{dataset}/{method}/seed{seed}/uncertainty", directory),
        record=part_output("<results>/{dataset}/{method}/seed{seed}/prediction.json"),
    log:
        in_part("<logs>/predict/{dataset}/{method}/seed{seed}.log"),
    benchmark:
        in_part("<benchmarks>/predict/{dataset}/{method}/seed{seed}.tsv")
    wildcard_constraints:
        method=names_of_methods(has_model),
    conda:
        "../envs/dvlae.yaml"
    threads: prediction_threads
    resources:
        gpu=GPUS,
        device=config["device"],
        tile=config["prediction"]["tile"],
        batch_size=config["prediction"]["batch_size"],
        mem_mb=prediction_memory_mb,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        settings=prediction_settings,
        samples=lambda wildcards, output: option("--samples", output.get("samples")),
        part=part_option,
        model=lambda wildcards, input: method_of(wildcards).model or input.model,
        checkpoints=lambda wildcards, input: (
            option("--remove-checkpoints", f"{input.model}/../checkpoints") if method_of(wildcards).trained else []
        ),
        revision=revision.PREDICTION,
    message:
        "Denoising {wildcards.dataset} with {wildcards.method}, seed {wildcards.seed}; log in {log}"
    shell:
        "dvlae predict {params.model:q} {input.images:q} --denoised {output.denoised:q}"
        " --uncertainty {output.uncertainty:q} {params.samples:q} {params.part} --seed {wildcards.seed}"
        " --settings {params.settings:q} --device {resources.device} --cores {threads}"
        " --tile {resources.tile} --batch-size {resources.batch_size}"
        " {params.checkpoints:q}"
        " 2>&1 | tee -i {log:q} || failed {log:q}"
