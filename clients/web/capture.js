/** Take pictures of a video element as small JPEGs at a steady rate. Knows no server. */

/**
 * @typedef {object} Picture
 * @property {Blob} blob JPEG, its shorter side at most 256 pixels: more than encoders look at
 * @property {HTMLCanvasElement} thumb 64 x 48; used again after 256 more pictures
 * @property {number} timestampMs
 */

const SHORTER_SIDE = 256;
const QUALITY = 0.85;
const THUMBS = 256;

export class Capture {
  #canvas = document.createElement("canvas");
  #thumbs = Array.from({ length: THUMBS }, () => {
    return Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
  });
  #taken = 0;
  #lastMs = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /**
   * @param {HTMLVideoElement} video
   * @param {(picture: Picture) => void} take
   */
  constructor(video, take) {
    this.video = video;
    this.take = take;
    this.fps = 15;
  }

  /**
   * Begin, or go on after a pause.
   * @param {() => number} clockMs
   */
  start(clockMs) {
    this.stop();
    let dueMs = performance.now();
    const tick = async () => {
      const timer = this.#timer;
      await this.#takeOne(clockMs);
      if (timer !== this.#timer) return;
      dueMs = Math.max(dueMs + 1000 / this.fps, performance.now());
      this.#timer = setTimeout(tick, dueMs - performance.now());
    };
    this.#timer = setTimeout(tick);
  }

  /** Take no more pictures. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Forget the last picture's time: the next source has a clock of its own. */
  forget() {
    this.#lastMs = -Infinity;
  }

  /** @param {() => number} clockMs */
  async #takeOne(clockMs) {
    const { video } = this;
    const timer = this.#timer;
    const timestampMs = clockMs();
    if (video.readyState < 2 || !video.videoWidth || timestampMs <= this.#lastMs) return;
    const scale = Math.min(1, SHORTER_SIDE / Math.min(video.videoWidth, video.videoHeight));
    this.#canvas.width = Math.round(video.videoWidth * scale);
    this.#canvas.height = Math.round(video.videoHeight * scale);
    const context = this.#canvas.getContext("2d");
    if (!context) return;
    context.imageSmoothingQuality = "high";
    context.drawImage(video, 0, 0, this.#canvas.width, this.#canvas.height);
    const thumb = this.#drawThumb();
    this.#lastMs = timestampMs;
    const blob = await new Promise((done) => this.#canvas.toBlob(done, "image/jpeg", QUALITY));
    const stopped = timer !== this.#timer; // meanwhile: nobody waits for this picture
    if (blob && !stopped) this.take({ blob, thumb, timestampMs });
  }

  #drawThumb() {
    const thumb = this.#thumbs[this.#taken++ % THUMBS];
    const { width, height } = this.#canvas;
    const cut = Math.min(width / thumb.width, height / thumb.height);
    const [w, h] = [thumb.width * cut, thumb.height * cut];
    const context = thumb.getContext("2d");
    context?.drawImage(this.#canvas, (width - w) / 2, (height - h) / 2, w, h, 0, 0, 64, 48);
    return thumb;
  }
}
