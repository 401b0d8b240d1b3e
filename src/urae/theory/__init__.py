"""Theorem 2.4 as functions: as printed, exactly, and as a bound that holds; simulation; the best share."""

from urae.theory.advice import Advice, advise
from urae.theory.error import ErrorTerms, exact_error, mixed_label_noise, printed_bound, valid_bound
from urae.theory.estimates import Estimate, Estimates, estimate, mean_squared_gap, noise_gain, repeat_variance
from urae.theory.network import Network, random_network
from urae.theory.plot import Section, advice_figure, bound_figure, save_figure, share_figure, write_page
from urae.theory.problem import Measure, Mixing, Modes, Problem, learnt_part, random_problem
from urae.theory.share import BestShare, ErrorCurve, Sensitivity, best_share, error_curve
from urae.theory.simulation import Simulation, simulate
from urae.theory.surveys import Case, WidthCase, survey, survey_widths, varied_problem

__all__ = [
    "Advice",
    "BestShare",
    "Case",
    "ErrorCurve",
    "ErrorTerms",
    "Estimate",
    "Estimates",
    "Measure",
    "Mixing",
    "Modes",
    "Network",
    "Problem",
    "Section",
    "Sensitivity",
    "Simulation",
    "WidthCase",
    "advice_figure",
    "advise",
    "best_share",
    "bound_figure",
    "error_curve",
    "estimate",
    "exact_error",
    "learnt_part",
    "mean_squared_gap",
    "mixed_label_noise",
    "noise_gain",
    "printed_bound",
    "random_network",
    "random_problem",
    "repeat_variance",
    "save_figure",
    "share_figure",
    "simulate",
    "survey",
    "survey_widths",
    "valid_bound",
    "varied_problem",
    "write_page",
]
