"use strict";
/* Normal maps: from a data script's text to numbers. Mirrors ncbench/reports/page/codes.py. */
ncbench.maps = (() => {
  const KEPT = 60; // decoded maps; a map of 320 x 240 takes 0.9 MB
  const decoded = new Map();

  function bytes(base64) {
    const text = atob(base64);
    const values = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
    return values;
  }

  async function inflate(base64) {
    const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** Undo one plane of differences to the left, upper and upper-left neighbours. */
  function plane(data, offset, size, width) {
    const values = new Int32Array(size);
    for (let i = 0; i < size; i++) {
      const folded = data[offset + i] | (data[offset + size + i] << 8);
      const left = i % width ? values[i - 1] : 0;
      const up = i >= width ? values[i - width] : 0;
      const corner = i % width && i >= width ? values[i - width - 1] : 0;
      values[i] = ((folded >>> 1) ^ -(folded & 1)) + left + up - corner;
    }
    return values;
  }

  /** Octahedral codes to unit vectors x0 y0 z0 x1 ...; zeros where there is no normal. */
  function vectors(u, v, codes) {
    const normals = new Float32Array(3 * u.length);
    const middle = 32767;
    const fine = (code) => Math.min(65534, Math.max(0, (code - codes.centre) * codes.step + middle)) - middle;
    for (let i = 0; i < u.length; i++) {
      if (u[i] === codes.none) continue;
      let x = fine(u[i]);
      let y = fine(v[i]);
      const z = Math.abs(x) + Math.abs(y) - middle;
      const fold = Math.max(z, 0);
      x -= x < 0 ? -fold : fold;
      y -= y < 0 ? -fold : fold;
      const length = Math.hypot(x, y, z);
      normals[3 * i] = x / length;
      normals[3 * i + 1] = y / length;
      normals[3 * i + 2] = z / length;
    }
    return normals;
  }

  async function decode(base64, clip, codes) {
    const data = await inflate(base64);
    const size = clip.width * clip.height;
    return vectors(plane(data, 0, size, clip.width), plane(data, 2 * size, size, clip.width), codes);
  }

  /** Read one frame of a clip: (3 N) float32, or null where there is no map. */
  async function read(clip, name, frame, codes) {
    const key = `${clip.key}/${name}`;
    const script = await ncbench.data.load(key);
    const text = script.frames[frame];
    if (text === null) return null;
    const place = `${key}/${frame}`;
    const found = decoded.get(place) ?? decode(text, clip, codes);
    decoded.delete(place);
    decoded.set(place, found);
    if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
    return found;
  }

  /** Read one picture of a clip; null where there is none. Made from bytes, so that its pixels can be read. */
  async function picture(clip, frame) {
    const script = await ncbench.data.load(`${clip.key}/input`);
    const text = script.frames[frame];
    return text === null ? null : createImageBitmap(new Blob([bytes(text)], { type: "image/jpeg" }));
  }

  const isSet = (map, i) => map[3 * i] !== 0 || map[3 * i + 1] !== 0 || map[3 * i + 2] !== 0;

  /** Angle in degrees between pixel i of one map and pixel j of another. */
  function angle(a, i, b, j = i) {
    const [ax, ay, az] = [a[3 * i], a[3 * i + 1], a[3 * i + 2]];
    const [bx, by, bz] = [b[3 * j], b[3 * j + 1], b[3 * j + 2]];
    const across = Math.hypot(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx);
    return Math.atan2(across, ax * bx + ay * by + az * bz) * (180 / Math.PI);
  }

  return { read, picture, isSet, angle, bytes };
})();
