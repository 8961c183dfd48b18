"""Makes bts-all.csv and bts-men.csv: how often Bernoulli Thompson sampling with the priors of the data set's authors shows
each item at each position, in 100,000 draws.

    pip install numpy pyyaml
    python make.py PATH/TO/prior_bts.yaml
"""

import sys

import numpy
import yaml

DRAWS, POSITIONS = 100_000, 3

with open(sys.argv[1]) as file:
    priors = yaml.safe_load(file)
for campaign in ("all", "men"):
    alpha, beta = (numpy.array(priors[campaign][name]) for name in ("alpha", "beta"))
    rates = numpy.random.RandomState(12345).beta(alpha, beta, size=(DRAWS, len(alpha)))
    shown = numpy.argsort(-rates, axis=1)[:, :POSITIONS]
    with open(f"bts-{campaign}.csv", "w") as out:
        out.write("item_id,position,probability\n")
        for position in range(POSITIONS):
            counts = numpy.bincount(shown[:, position], minlength=len(alpha))
            for item, count in enumerate(counts):
                out.write(f"{item},{position + 1},{count / DRAWS:.5f}\n")
