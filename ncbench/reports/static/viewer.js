"use strict";
/* The viewer of one protocol: which clip, frame, models, layer, column and pixel, and everything drawn from them. */
ncbench.viewer = (() => {
  const { make, role, roles } = ncbench.dom;
  const { degrees, count, vector } = ncbench.text;
  const maps = ncbench.maps;
  const panels = ncbench.panels;
  const timeline = ncbench.timeline;
  const TRUTH = "truth";
  const PLAY_MS = 120;

  function start(root, protocol, onMove) {
    const data = protocol.viewer;
    const state = { clip: 0, frame: 0, a: data.models[0], b: data.models[1] ?? TRUTH, layer: "normals", column: 0, pixel: null };
    const shown = {}; // maps of the frame on the screen: truth, a, b
    const flickers = new Map();
    let drawing = 0;
    let playing = null;

    const clip = () => data.clips[state.clip];
    const file = (model) => (model === TRUTH ? TRUTH : `model-${model}`);
    const title = (model) => (model === TRUTH ? "Truth" : protocol.models[model].title);
    const read = (model, frame) => maps.read(clip(), file(model), frame, data.codes);

    /* ---- what is chosen ---- */

    function choices() {
      const clips = role(root, "clip");
      data.clips.forEach((one, index) => {
        const part = one.frames.length < one.total ? `, ${one.frames.length} of ${one.total} frames` : "";
        clips.append(make("option", { value: index }, `${one.sequence}${part}`));
      });
      clips.addEventListener("change", () => go({ clip: Number(clips.value), frame: 0 }));
      for (const side of ["a", "b"]) {
        const select = role(root, side);
        for (const model of data.models) select.append(make("option", { value: model }, title(model)));
        select.append(make("option", { value: TRUTH }, "Truth"));
        select.addEventListener("change", () => go({ [side]: select.value === TRUTH ? TRUTH : Number(select.value) }));
      }
      for (const radio of roles(root, "layer")) {
        radio.addEventListener("change", () => go({ layer: radio.value }));
      }
      const frame = role(root, "frame");
      frame.addEventListener("input", () => go({ frame: Number(frame.value) }));
      const column = role(root, "column");
      column.addEventListener("input", () => go({ column: Number(column.value) }));
      role(root, "play").addEventListener("click", play);
      role(root, "swap").addEventListener("click", () => go({ a: state.b, b: state.a }));
    }

    /** Change the state and draw what depends on it. */
    function go(change) {
      const before = { ...state };
      Object.assign(state, change);
      const last = clip().frames.length - 1;
      state.frame = Math.min(last, Math.max(0, state.frame));
      const newClip = state.clip !== before.clip || change.first;
      if (newClip) state.column = Math.floor(clip().width / 2);
      if (newClip) state.pixel = [Math.floor(clip().width / 2), Math.floor(clip().height / 2)];
      state.column = Math.min(clip().width - 1, Math.max(0, state.column));
      controls();
      const inTime = newClip || ["a", "b", "column"].some((name) => state[name] !== before[name]);
      if (inTime) drawTime();
      onMove(state);
      return draw();
    }

    function controls() {
      const { width, height, frames } = clip();
      role(root, "clip").value = state.clip;
      for (const side of ["a", "b"]) role(root, side).value = state[side];
      for (const radio of roles(root, "layer")) radio.checked = radio.value === state.layer;
      const slider = role(root, "frame");
      slider.max = frames.length - 1;
      slider.value = state.frame;
      slider.setAttribute("aria-valuetext", `frame ${frames[state.frame]}`);
      role(root, "frame-text").textContent = `${frames[state.frame]}`;
      role(root, "frame-of").textContent = `${state.frame + 1} / ${frames.length}`;
      const column = role(root, "column");
      column.max = width - 1;
      column.value = state.column;
      role(root, "column-text").textContent = `${state.column * clip().stride + (clip().stride >> 1)}`;
      root.style.setProperty("--ratio", width / height);
      root.style.setProperty("--column", `${(100 * (state.column + 0.5)) / width}%`);
      root.style.setProperty("--moment", `${(100 * (state.frame + 0.5)) / frames.length}%`);
      for (const line of roles(root, "bars")) line.dataset.layer = state.layer;
    }

    /* ---- one frame ---- */

    async function draw() {
      const turn = ++drawing;
      const wanted = { ...state };
      try {
        await panels.ready();
        const [truth, a, b, picture] = await Promise.all([
          read(TRUTH, wanted.frame), read(wanted.a, wanted.frame), read(wanted.b, wanted.frame),
          maps.picture(clip(), wanted.frame),
        ]);
        const flicker = wanted.layer === "flicker" ? await Promise.all([flickerOf(wanted.a), flickerOf(wanted.b)]) : null;
        if (turn !== drawing) return; // a later call draws something newer
        Object.assign(shown, { truth, a, b });
        drawTiles(picture);
        drawStage(flicker);
        probe();
        root.dataset.drawn = `${state.clip}/${state.frame}/${state.a}/${state.b}/${state.layer}`;
      } catch (error) {
        complain(error);
      }
    }

    function drawTiles(picture) {
      const tile = (name) => root.querySelector(`[data-tile="${name}"] canvas`);
      panels.picture(tile("input"), clip(), picture);
      panels.normals(tile("truth"), clip(), shown.truth);
      for (const side of ["a", "b"]) {
        panels.normals(tile(side), clip(), shown[side]);
        panels.errors(tile(`${side}-error`), clip(), shown[side], shown.truth, data.charge);
        for (const name of roles(root, `name-${side}`)) name.textContent = title(state[side]);
        const words = score(state[side]);
        for (const text of roles(root, `score-${side}`)) text.textContent = words && `${side.toUpperCase()}: ${words}`;
        describe(tile(side), `Normals of ${title(state[side])}`);
        describe(tile(`${side}-error`), `Angular error of ${title(state[side])}: ${words}`);
      }
      describe(tile("input"), "Input picture");
      describe(tile("truth"), "True normals");
    }

    function drawStage(flicker) {
      ["a", "b"].forEach((side, index) => {
        const canvas = role(root, `stage-${side}`);
        if (state.layer === "normals") panels.normals(canvas, clip(), shown[side]);
        if (state.layer === "error") panels.errors(canvas, clip(), shown[side], shown.truth, data.charge);
        if (state.layer === "flicker") panels.flicker(canvas, clip(), flicker[index]);
        describe(canvas, `${state.layer} of ${title(state[side])}, ${score(state[side])}`);
      });
    }

    const describe = (canvas, words) => canvas.setAttribute("aria-label", `${words}. ${clip().sequence}, frame ${clip().frames[state.frame]}`);

    /** What the result says of a model on this frame. */
    function score(model) {
      if (model === TRUTH) return "";
      const scores = clip().scores[data.models.indexOf(model)][state.frame];
      if (!scores) return "not in the result";
      const [mean, pixels, failed] = scores;
      if (failed) return `no prediction: ${failed}`;
      return pixels ? `mean ${degrees(mean, 2)} over ${count(pixels)} px` : "no true pixel to score";
    }

    /* ---- one pixel ---- */

    function probe() {
      const { width, stride, size } = clip();
      const [x, y] = state.pixel;
      const i = y * width + x;
      const at = (value) => value * stride + (stride >> 1);
      role(root, "probe-place").textContent = `x ${at(x)}, y ${at(y)} of ${size[1]} × ${size[0]}`;
      for (const name of ["truth", "a", "b"]) {
        const cells = role(root, `probe-${name}`).cells;
        const map = shown[name];
        const set = map && maps.isSet(map, i);
        const values = set ? vector([...map.subarray(3 * i, 3 * i + 3)]) : ["–", "–", "–"];
        values.forEach((value, index) => { cells[index + 1].textContent = value; });
        if (name !== "truth") cells[4].textContent = verdict(map, i);
      }
      root.style.setProperty("--probe-x", `${(100 * (x + 0.5)) / width}%`);
      root.style.setProperty("--probe-y", `${(100 * (y + 0.5)) / clip().height}%`);
    }

    function verdict(map, i) {
      if (!map) return "no prediction";
      if (!shown.truth || !maps.isSet(shown.truth, i)) return "no truth";
      if (!maps.isSet(map, i)) return `no answer: ${degrees(data.charge, 0)}`;
      return degrees(maps.angle(map, i, shown.truth));
    }

    /** The pixel under the pointer. */
    function pixelAt(event, canvas) {
      const box = canvas.getBoundingClientRect();
      const inside = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
      return [
        inside((event.clientX - box.left) / box.width, clip().width),
        inside((event.clientY - box.top) / box.height, clip().height),
      ];
    }

    function pointers() {
      for (const figure of root.querySelectorAll("[data-probe]")) {
        const canvas = figure.querySelector("canvas");
        const follow = (event) => {
          state.pixel = pixelAt(event, canvas);
          if (shown.truth !== undefined) probe();
          const dragging = event.buttons === 1 && figure.dataset.probe === "column";
          if (dragging) go({ column: state.pixel[0] });
        };
        figure.addEventListener("pointermove", follow);
        figure.addEventListener("pointerdown", follow);
      }
    }

    /* ---- time ---- */

    async function flickerOf(model) {
      const key = `${state.clip}/${model}`;
      if (!flickers.has(key)) flickers.set(key, timeline.flicker(clip(), file(model), data.codes));
      return flickers.get(key);
    }

    let timing = 0;
    async function drawTime() {
      const turn = ++timing;
      const place = clip();
      const { column, a, b } = state;
      try {
        await panels.ready();
        const drawn = { input: document.createElement("canvas") };
        await timeline.pictureSlice(drawn.input, place, column);
        for (const [name, model] of [["truth", TRUTH], ["a", a], ["b", b]]) {
          drawn[name] = document.createElement("canvas");
          await timeline.slice(drawn[name], place, file(model), column, data.codes);
        }
        if (turn !== timing) return;
        for (const figure of root.querySelectorAll("[data-slice]")) {
          const canvas = figure.querySelector("canvas");
          const source = drawn[figure.dataset.slice];
          [canvas.width, canvas.height] = [source.width, source.height];
          canvas.getContext("2d").drawImage(source, 0, 0);
        }
        root.dataset.sliced = `${state.clip}/${column}/${a}/${b}`;
      } catch (error) {
        complain(error);
      }
    }

    /* ---- keys and time passing ---- */

    function play() {
      const button = role(root, "play");
      clearInterval(playing);
      const next = () => (root.checkVisibility() ? go({ frame: (state.frame + 1) % clip().frames.length }) : play());
      playing = playing ? null : setInterval(next, PLAY_MS);
      button.textContent = playing ? "Pause" : "Play";
    }

    function keys(event) {
      if (event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
      const last = clip().frames.length - 1;
      const frames = { ArrowLeft: state.frame - 1, ArrowRight: state.frame + 1, Home: 0, End: last };
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.shiftKey && event.key in steps) {
        const [dx, dy] = steps[event.key];
        const within = (value, size) => Math.min(size - 1, Math.max(0, value));
        state.pixel = [within(state.pixel[0] + dx, clip().width), within(state.pixel[1] + dy, clip().height)];
        probe();
      } else if (!event.shiftKey && event.key in frames) {
        go({ frame: frames[event.key] });
      } else return;
      event.preventDefault();
    }

    function complain(error) {
      const place = role(root, "complaint");
      place.textContent = error.message;
      place.hidden = false;
    }

    /** Show a frame that is named elsewhere; gives false where the viewer does not hold it. */
    function show(sequence, frame, model) {
      const index = data.clips.findIndex((one) => one.sequence === sequence && one.frames.includes(frame));
      if (index < 0) return false;
      const held = data.models.includes(model);
      const b = held && model === state.b ? state.a : state.b;
      go({ clip: index, frame: data.clips[index].frames.indexOf(frame), a: held ? model : state.a, b });
      return true;
    }

    const holds = (sequence, frame) => data.clips.some((one) => one.sequence === sequence && one.frames.includes(frame));

    choices();
    pointers();
    ncbench.stage.start(root);
    root.addEventListener("keydown", keys);
    panels.ready().then(() => {
      for (const canvas of roles(root, "ball")) panels.ball(canvas);
      for (const canvas of roles(root, "bar")) panels.bar(canvas, canvas.dataset.table);
    }, complain);
    return { show, holds, open: () => go({ first: true }), go };
  }

  return { start };
})();
