"use strict";
/* Pictures of maps on canvases: normals, errors, flicker, and their legends. A pixel without a value is clear. */
ncbench.panels = (() => {
  const { isSet, angle } = ncbench.maps;
  let tables = null;

  async function ready() {
    if (tables) return;
    const found = await ncbench.data.load("colours");
    tables = {};
    for (const [name, one] of Object.entries(found)) {
      tables[name] = { limit: one.limit, colours: ncbench.maps.bytes(one.table) };
    }
  }

  /** Fill a canvas pixel by pixel; paint(i, rgba) writes pixel i or leaves it clear. */
  function fill(canvas, width, height, paint) {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) paint(i, image.data);
    context.putImageData(image, 0, 0);
  }

  /** Right is red, up is green, towards the camera is blue; the data's own axes are x right, y down, z forward. */
  function normalColour(x, y, z, rgba, at) {
    rgba[at] = Math.round((x * 0.5 + 0.5) * 255);
    rgba[at + 1] = Math.round((-y * 0.5 + 0.5) * 255);
    rgba[at + 2] = Math.round((-z * 0.5 + 0.5) * 255);
    rgba[at + 3] = 255;
  }

  function tableColour(table, share, rgba, at) {
    const entry = 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
    rgba[at] = table.colours[entry];
    rgba[at + 1] = table.colours[entry + 1];
    rgba[at + 2] = table.colours[entry + 2];
    rgba[at + 3] = 255;
  }

  function normals(canvas, clip, map) {
    fill(canvas, clip.width, clip.height, (i, rgba) => {
      if (map && isSet(map, i)) normalColour(map[3 * i], map[3 * i + 1], map[3 * i + 2], rgba, 4 * i);
    });
  }

  /** As the score has it: a pixel without an answer is charged, one without truth is not looked at. */
  const errorAt = (map, truth, i, charge) => (isSet(truth, i) ? (isSet(map, i) ? angle(map, i, truth) : charge) : NaN);

  function errors(canvas, clip, map, truth, charge) {
    const { limit } = tables.error;
    fill(canvas, clip.width, clip.height, (i, rgba) => {
      const error = map && truth ? errorAt(map, truth, i, charge) : NaN;
      if (!Number.isNaN(error)) tableColour(tables.error, error / limit, rgba, 4 * i);
    });
  }

  function flicker(canvas, clip, values) {
    const { limit } = tables.flicker;
    fill(canvas, clip.width, clip.height, (i, rgba) => {
      if (!Number.isNaN(values[i])) tableColour(tables.flicker, 0.5 + values[i] / (2 * limit), rgba, 4 * i);
    });
  }

  function picture(canvas, clip, bitmap) {
    canvas.width = clip.width;
    canvas.height = clip.height;
    if (bitmap) canvas.getContext("2d").drawImage(bitmap, 0, 0);
  }

  /** A sphere seen from the camera: every normal that faces it, in its colour. */
  function ball(canvas) {
    const size = 144;
    fill(canvas, size, size, (i, rgba) => {
      const x = ((i % size) + 0.5) / size * 2 - 1;
      const y = (Math.floor(i / size) + 0.5) / size * 2 - 1;
      const left = 1 - x * x - y * y;
      if (left <= 0) return;
      normalColour(x, y, -Math.sqrt(left), rgba, 4 * i);
      rgba[4 * i + 3] = Math.min(255, Math.round(255 * left * size / 8)); // a soft rim
    });
  }

  function bar(canvas, name) {
    fill(canvas, 256, 1, (i, rgba) => tableColour(tables[name], i / 255, rgba, 4 * i));
  }

  return { ready, normals, errors, errorAt, flicker, picture, ball, bar, normalColour };
})();
