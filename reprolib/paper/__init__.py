"""The apparatus: the reproduction of this paper.

plan   what is computed: declarations under params/ become networks, attacks and one list of jobs per page
run    computing it once: store, keys, published networks, records
judge  what it is worth: the paper's claims, verdicts, the sanity ladder, the scoreboard
show   what a reader sees: tables, pictures, pages, the status

Beside the rooms stands what starts them: `cli`, `batch` (Snakemake), `notebooks` (papermill) and `files`. A batch
starts many processes of them, so they import no torch, and a room only where they need it.

Imports run from judge and show down to run and plan, from run to plan, and from all of them to the method; never back.
"""
