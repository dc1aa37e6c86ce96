"""A thin library for one paper: patch operations, gradient attacks, fine-tuning, and honest bookkeeping.

Four floors, imports point only down:

    report, diagnostics             numbers -> records, tables, pictures, verdicts (report names what five modules hold)
    evaluation, training, defenses  work that costs time; everything that costs goes through the store
    attacks, patches, models, data  tensors in, tensors out
    specs, claims, store            plain data; specs and claims import no torch
"""

__version__ = "0.1.0"

import warnings

# Table 1 prints even kernels for CIFARconv; torch says of each that it pads a copy of the input, which is what is wanted.
warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
