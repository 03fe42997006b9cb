"use strict";
/* Put the page to work: one protocol at a time, its data when it is shown, its viewer when it is near. */
(() => {
  const { make, role, roles, whenNear } = ncbench.dom;
  const { degrees, count } = ncbench.text;
  const sections = roles(document, "protocol");
  const links = roles(document, "to-protocol");
  const started = new Map();
  const REST_MS = 250;

  /** The address names the protocol and, where the viewer was moved, its clip, frame, A and B. */
  function parts() {
    const [key, ...rest] = decodeURIComponent(location.hash.slice(1)).split("/");
    return { section: sections.find((one) => one.id === key) ?? sections[0], rest };
  }

  function route() {
    const { section, rest } = parts();
    if (!section) return;
    for (const one of sections) one.hidden = one !== section;
    for (const link of links) {
      if (link.getAttribute("href") === `#${section.id}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    begin(section).then((viewer) => viewer && rest.length >= 2 && follow(viewer, rest), (error) => complain(section, error));
  }

  function follow(viewer, [clip, frame, a, b]) {
    const model = (text) => (text === "truth" ? "truth" : Number(text));
    viewer.enter({ clip: Number(clip), frame: Number(frame), ...(a && b ? { a: model(a), b: model(b) } : {}) });
  }

  function begin(section) {
    if (!started.has(section)) started.set(section, prepare(section));
    return started.get(section);
  }

  async function prepare(section) {
    ncbench.leaderboard.start(section);
    const protocol = await ncbench.data.load(`${section.id}/protocol`);
    ncbench.plots.start(section, protocol);
    const root = role(section, "viewer");
    const viewer = root && protocol.viewer ? open(section, root, protocol) : null;
    hardest(section, protocol, viewer);
    section.dataset.ready = "true";
    return viewer;
  }

  /** Start the viewer when it is near the screen, or at once where somebody asks for a frame. */
  function open(section, root, protocol) {
    let address = "";
    let resting = 0;
    const viewer = ncbench.viewer.start(root, protocol, (state) => {
      const now = `#${section.id}/${state.clip}/${state.frame}/${state.a}/${state.b}`;
      clearTimeout(resting); // browsers refuse addresses that change many times a second
      if (address && now !== address) resting = setTimeout(() => history.replaceState(null, "", now), REST_MS);
      address = now;
    });
    let opened = false;
    const once = () => {
      if (!opened) viewer.open();
      opened = true;
    };
    whenNear(root, once);
    const reveal = () => root.scrollIntoView({ block: "start" });
    return {
      holds: viewer.holds,
      enter(change) {
        if (!protocol.viewer.clips[change.clip]) return;
        once();
        viewer.go(change);
        reveal();
      },
      show(...place) {
        once();
        if (viewer.show(...place)) reveal();
        root.focus({ preventScroll: true });
      },
    };
  }

  function hardest(section, protocol, viewer) {
    const select = role(section, "hardest-model");
    const list = role(section, "hardest");
    protocol.models.forEach((model, index) => {
      if (protocol.hardest[index]?.length) select.append(make("option", { value: index }, model.title));
    });
    const fill = () => {
      const frames = protocol.hardest[Number(select.value)] ?? [];
      const unit = protocol.metric.degrees ? "°" : "";
      list.replaceChildren(...frames.map(([sequence, frame, value, pixels]) => {
        const name = `${sequence}, frame ${frame}`;
        const place = viewer?.holds(sequence, frame) ? make("button", { type: "button", class: "link" }, name) : make("span", { title: "not among the viewer's frames" }, name);
        place.addEventListener("click", () => viewer?.holds(sequence, frame) && viewer.show(sequence, frame, Number(select.value)));
        const number = unit ? degrees(value, 2) : (value?.toPrecision(3) ?? "–");
        return make("li", {}, place, make("span", { class: "number" }, number), make("span", { class: "soft" }, `${count(pixels)} px`));
      }));
    };
    select.addEventListener("change", fill);
    role(section, "hardest-card").hidden = !select.options.length;
    fill();
  }

  function complain(section, error) {
    const place = role(section, "complaint");
    place.textContent = error.message;
    place.hidden = false;
  }

  ncbench.theme.start();
  addEventListener("hashchange", route);
  route();
  document.documentElement.dataset.ready = "true";
})();
