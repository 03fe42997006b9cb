"use strict";
/* Time in pictures: one column over all frames, and how much each pixel flickers. */
ncbench.timeline = (() => {
  const { isSet, angle, read, picture } = ncbench.maps;
  const { normalColour } = ncbench.panels;

  /** Frames from left to right, the column's pixels from top to bottom. */
  async function slice(canvas, clip, name, column, codes) {
    const rows = clip.height;
    const image = new ImageData(clip.frames.length, rows);
    const maps = await Promise.all(clip.frames.map((_, frame) => read(clip, name, frame, codes)));
    maps.forEach((map, frame) => {
      for (let y = 0; map && y < rows; y++) {
        const i = y * clip.width + column;
        const at = 4 * (y * clip.frames.length + frame);
        if (isSet(map, i)) normalColour(map[3 * i], map[3 * i + 1], map[3 * i + 2], image.data, at);
      }
    });
    canvas.width = clip.frames.length;
    canvas.height = rows;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  async function pictureSlice(canvas, clip, column) {
    const pictures = await Promise.all(clip.frames.map((_, frame) => picture(clip, frame)));
    canvas.width = clip.frames.length;
    canvas.height = clip.height;
    const context = canvas.getContext("2d");
    pictures.forEach((one, frame) => {
      if (one) context.drawImage(one, column, 0, 1, clip.height, frame, 0, 1, clip.height);
    });
  }

  /**
   * Mean angle between neighbouring predictions at a pixel, less that of the truth, in degrees; NaN where no two
   * neighbouring frames have both. Pixels stay where they are: motion is not followed.
   */
  async function flicker(clip, name, codes) {
    const size = clip.width * clip.height;
    const sums = new Float64Array(size);
    const counts = new Int32Array(size);
    let before = null;
    for (let frame = 0; frame < clip.frames.length; frame++) {
      const [map, truth] = await Promise.all([read(clip, name, frame, codes), read(clip, "truth", frame, codes)]);
      const now = map && truth ? { map, truth } : null;
      for (let i = 0; now && before && i < size; i++) {
        if (!isSet(truth, i) || !isSet(before.truth, i) || !isSet(map, i) || !isSet(before.map, i)) continue;
        sums[i] += angle(map, i, before.map) - angle(truth, i, before.truth);
        counts[i] += 1;
      }
      before = now;
    }
    return sums.map((sum, i) => (counts[i] ? sum / counts[i] : NaN));
  }

  return { slice, pictureSlice, flicker };
})();
