"""The explorer's page, made of Gradio's parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from coc_core.errors import UserError
from coc_core.mm.explorer.answers import ClusterExplorer, Request, configs_beside, known_models, model_of, side_by_side
from coc_core.visualization.files import IMAGE_SUFFIXES, write_image

MAX_UPLOAD = '20mb'
NONE = 'none'
_LONGEST_STEM = 200
HINT = 'Upload or pick an image. A click on a point of the picture shows its cluster and what is similar to its center.'


def build_page(checkpoints: Sequence[str], images: Sequence[str], model: str | None, folder: Path) -> gr.Blocks:
    """Return the page.

    Args:
        checkpoints: Files to pick from, at least one.
        images: Files to pick from.
        model: Config file, name of one of the project's, or variant that the page starts with; None: the config beside
            the first checkpoint.
        folder: Where pictures for the download are written.

    Raises:
        UserError: There is no such config or variant.
    """
    models = [*configs_beside(checkpoints), *known_models()]
    if model is not None and model not in models:
        if not Path(model).is_file():
            raise UserError(f'--model {model} is unknown: name a config file, or one of configs/ or a variant.')
        models.insert(0, model)
    model = model or model_of(checkpoints[0]) or models[0]
    with gr.Blocks(title='Context Cluster explorer', analytics_enabled=False, delete_cache=(600, 3600)) as page:
        point = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                upload = gr.File(
                    label=f'Upload an image (up to {MAX_UPLOAD})', file_types=list(IMAGE_SUFFIXES), height=150
                )
                picked = gr.Dropdown(
                    images, value=images[0] if images else None, label='or pick one', visible=bool(images)
                )
                size = gr.Slider(0, 1024, 0, step=32, label='Shorter side seen (0: as tested)')
                first = [gr.Dropdown(checkpoints, value=checkpoints[0], label='Checkpoint')]
                first.append(gr.Dropdown(models, value=model, label='Model'))
                second = [gr.Dropdown([NONE, *checkpoints], value=NONE, label='Compare with checkpoint')]
                second.append(gr.Dropdown(models, value=model, label='Its model'))
                stage = gr.Slider(0, 3, 0, step=1, label='Stage')
                block = gr.Slider(0, 1, 0, step=1, label='Block')
                head = gr.Slider(0, 1, 0, step=1, label='Head')
                opacity = gr.Slider(0, 1, 0.6, step=0.05, label='Opacity')
                download = gr.DownloadButton('Download the picture', interactive=False)
            with gr.Column(scale=3):
                message = gr.Markdown(HINT, elem_id='message')
                with gr.Row():
                    pictures = [_picture(f'Clusters {name}', f'clusters-{name}') for name in 'AB']
                with gr.Row():
                    details = [
                        _picture(
                            'Its cluster, and how similar points are to its center (bright: most)', f'point-{name}'
                        )
                        for name in 'AB'
                    ]
        inputs = [upload, picked, size, *first, *second, stage, block, head, opacity, point]
        outputs = [message, *pictures, *details, stage, block, head, download]
        update = dict(
            fn=Page(folder), inputs=inputs, outputs=outputs, show_progress='minimal', trigger_mode='always_last'
        )
        page.load(**update)
        for part in (upload, picked, *first[1:], *second[1:], point):
            part.change(**update)
        for slider in (size, stage, block, head, opacity):
            slider.input(**update)
        for checkpoint, its_model in (first, second):
            # A model that changes with its checkpoint updates the page by itself.
            checkpoint.change(
                fn=lambda name, now: model_of(name) or now, inputs=[checkpoint, its_model], outputs=its_model
            ).then(**update)
        for picture in pictures:
            picture.select(fn=clicked, inputs=picture, outputs=point)
    return page


def _picture(label: str, name: str) -> Any:
    return gr.Image(label=label, elem_id=name, format='png', interactive=False, visible=False, buttons=['fullscreen'])


def clicked(picture: Any, event: gr.SelectData) -> tuple[float, float]:
    """Return where a picture was clicked, as fractions of its height and width."""
    x, y = event.index
    return y / picture.shape[0], x / picture.shape[1]


class Page:
    """Answers every event of the page: what is picked goes in, what is shown comes out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.explorer = ClusterExplorer()

    def __call__(
        self,
        upload: str | None,
        picked: str | None,
        size: int,
        checkpoint: str,
        model: str,
        other_checkpoint: str,
        other_model: str,
        stage: int,
        block: int,
        head: int,
        opacity: float,
        point: tuple[float, float] | None,
    ) -> list[Any]:
        """Return the message, two pictures, two details, the sliders within the model's bounds and the download."""
        nothing = [gr.Image(value=None, visible=False)] * 4 + [gr.skip()] * 3 + [gr.DownloadButton(interactive=False)]
        image = upload or picked
        if image is None:
            return [HINT, *nothing]
        models = [(model, checkpoint)]
        if other_checkpoint != NONE:
            models.append((other_model, other_checkpoint))
        try:
            answer = self.explorer.answer(
                Request(Path(image), int(size), tuple(models), int(stage), int(block), int(head), opacity, point)
            )
            saved = self._saved(answer, Path(image))
        except UserError as error:
            return [f'**{error}**', *nothing]
        shown = [*answer.pictures, None][:2]
        return [
            '\n\n'.join(picture.caption for picture in answer.pictures),
            *(gr.Image(value=p and p.overlay, visible=p is not None) for p in shown),
            *(gr.Image(value=p and p.detail, visible=p is not None and p.detail is not None) for p in shown),
            gr.Slider(maximum=len(answer.depths) - 1, value=answer.stage),
            gr.Slider(maximum=answer.depths[answer.stage] - 1, value=answer.block),
            gr.Slider(maximum=answer.heads - 1, value=answer.head),
            gr.DownloadButton(value=saved, interactive=True),
        ]

    def _saved(self, answer: Any, image: Path) -> Path:
        # With what is added, the name of a file may have 255 bytes.
        stem = os.fsencode(image.stem)[:_LONGEST_STEM].decode(errors='ignore')
        path = self.folder / f'{stem}_stage{answer.stage}_block{answer.block}_head{answer.head}.png'
        write_image(path, side_by_side(answer))
        return path
