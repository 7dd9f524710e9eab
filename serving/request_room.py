"""What the longest requests that a recipe allows take of the engine's context."""

from __future__ import annotations

import math
from pathlib import Path

from lensmith.context import context_problems
from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe
from lensmith.tokens import Grid, ImageGrid, PixelBudget, read_grid
from lensmith.video_tokens import VideoGrid

# Room that a request's text needs beside the largest image, in tokens.
_TEXT_TOKENS = 64
# And the time of a group of frames, with the marks around it.
_TIME_TOKENS = 12


def check_room(recipe: Recipe, base: Path) -> None:
    """What of the recipe's requests could never fit, by the checkpoint at `base`, before it is trained.

    Raises InputError with every reason.
    """
    problems = room_problems(recipe, base, read_grid(base, recipe.model_family, recipe.pixel_budget))
    if problems:
        raise InputError("what is trained could not be served as the recipe says", problems)


def room_problems(recipe: Recipe, weights: Path, grid: Grid) -> list[Problem]:
    """More tokens than the checkpoint has positions for; images or videos that leave none for text."""
    serve = recipe.serve
    problems = context_problems(recipe, weights)
    if (longest := _longest_video(recipe, grid)) + _TEXT_TOKENS + serve.max_new_tokens > serve.max_model_len:
        problems.append(
            Problem(
                f"videos may take {longest} tokens; with text and an answer of"
                f" {serve.max_new_tokens} they do not fit {serve.max_model_len}",
                "serve.max_model_len",
                "raise it, or lower data.video.max_frames or max_pixels and train with that",
            )
        )
    longest = grid.most_tokens * serve.max_images
    if longest + _TEXT_TOKENS + serve.max_new_tokens > serve.max_model_len:
        problems.append(
            Problem(
                f"images may take {longest} tokens; with text and an answer of"
                f" {serve.max_new_tokens} they do not fit {serve.max_model_len}",
                "serve.max_model_len",
                "raise it, or lower pixels.max_pixels and train with that"
                if isinstance(grid, ImageGrid)
                else "raise it",
            )
        )
    return problems


def _longest_video(recipe: Recipe, grid: object) -> int:
    """Tokens of the longest videos that a request may hold, 0 where it may hold none; at most so many, as the
    checkpoint's own bounds on a video's pixels are not looked at."""
    asked, form = recipe.data.video, recipe.model_family.video
    if asked is None or form is None or not isinstance(grid, ImageGrid):
        return 0
    edge = math.isqrt(asked.max_pixels)
    seen = VideoGrid(grid.factor, form.frames, PixelBudget(1, asked.max_frames * asked.max_pixels * 2))
    text = _TIME_TOKENS * form.groups(asked.max_frames)
    return (seen.tokens(asked.max_frames, edge, edge) + text) * recipe.serve.max_videos
