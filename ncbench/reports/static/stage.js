"use strict";
/* The stage: one picture over another, with a divider that the pointer or the arrow keys move. */
ncbench.stage = (() => {
  const { role } = ncbench.dom;

  function start(root) {
    const stage = role(root, "stage");
    const divider = role(root, "divider");
    const top = role(root, "stage-a");
    let share = 50;

    function move(to) {
      share = Math.min(100, Math.max(0, to));
      divider.style.left = `${share}%`;
      top.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
      divider.setAttribute("aria-valuenow", Math.round(share));
    }

    const shareAt = (event) => {
      const box = stage.getBoundingClientRect();
      return (100 * (event.clientX - box.left)) / box.width;
    };

    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      divider.focus();
      event.preventDefault();
    });
    divider.addEventListener("pointermove", (event) => {
      if (divider.hasPointerCapture(event.pointerId)) move(shareAt(event));
    });
    divider.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: share - 2, ArrowRight: share + 2, Home: 0, End: 100 };
      if (event.shiftKey || !(event.key in steps)) return;
      move(steps[event.key]);
      event.preventDefault();
      event.stopPropagation(); // the same keys scrub frames elsewhere in the viewer
    });
    move(share);
  }

  return { start };
})();
