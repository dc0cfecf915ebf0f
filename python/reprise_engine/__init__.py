"""An engine as a guest of the cache: all that knows no engine. What knows one is a package beside this (reprise_vllm).

    scheduler/   what the cache is asked for and told: hits, saves, one link per rank     the scheduler's process
    worker/      the jobs of a step, and what became of them                              each worker
    copy/        bytes between the mapped pool and the engine's KV cache                 each worker

The two sides share plain data only (plan.py), and meet in same_process.py where they live in one process.
"""
