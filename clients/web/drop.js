/** Files dropped on an element. Knows no video. */

/**
 * @param {HTMLElement} element
 * @param {(file: File | undefined) => unknown} take
 */
export function takeDrops(element, take) {
  for (const type of ["dragover", "dragleave", "drop"]) {
    element.addEventListener(type, (event) => {
      event.preventDefault();
      element.classList.toggle("dropping", type === "dragover");
      if (event instanceof DragEvent && type === "drop") take(event.dataTransfer?.files[0]);
    });
  }
}
