/** Where pictures come from: a camera, a file, the sample. Knows no server and no words. */

/**
 * @typedef {object} Source
 * @property {"camera" | "file"} kind
 * @property {string} name
 * @property {() => number} clockMs time of the picture on show, whole ms since the source began
 * @property {() => void} close
 */

/** A source that could not be opened, said in words for people. */
export class SourceError extends Error {}

const REASONS = new Map([
  ["NotAllowedError", "The camera was not allowed. Allow it beside the address bar, then start again."],
  ["NotFoundError", "No camera was found. Plug one in, or open a video file."],
  ["NotReadableError", "The camera is busy: another program may be using it."],
  ["OverconstrainedError", "That camera is gone. Choose another one."],
]);

/**
 * Show a camera in the video element.
 * @param {HTMLVideoElement} video
 * @param {string} [deviceId] taken where it is still there
 * @returns {Promise<Source>}
 */
export async function openCamera(video, deviceId) {
  const media = await askForCamera(deviceId);
  video.removeAttribute("src");
  video.srcObject = media;
  const close = () => {
    for (const track of media.getTracks()) track.stop();
    if (video.srcObject === media) video.srcObject = null;
  };
  await playOrClose(video, close);
  // A camera that is unplugged ends like a file that is over.
  const ended = () => video.dispatchEvent(new Event("ended"));
  media.getVideoTracks()[0]?.addEventListener("ended", ended);
  const startedMs = performance.now();
  return {
    kind: "camera",
    name: media.getVideoTracks()[0]?.label || "camera",
    clockMs: () => Math.round(performance.now() - startedMs),
    close,
  };
}

/**
 * Show the camera's picture; a camera that cannot be shown does not stay on.
 * @param {HTMLVideoElement} video
 * @param {() => void} close
 */
async function playOrClose(video, close) {
  try {
    await video.play();
  } catch (error) {
    close();
    const why = error instanceof Error ? error.message : String(error);
    throw new SourceError(`The camera’s picture did not start: ${why}`);
  }
}

/** @param {string} [deviceId] */
async function askForCamera(deviceId) {
  if (!navigator.mediaDevices) {
    throw new SourceError("Browsers give cameras only to https pages and to localhost.");
  }
  const choice = deviceId ? { deviceId: { ideal: deviceId } } : { facingMode: "environment" };
  const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { ...choice, ...size } });
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new SourceError(REASONS.get(error.name) ?? `The camera did not start: ${error.message}`);
  }
}

/**
 * The cameras there are; none where the browser does not tell, which is no reason to stop one.
 * @returns {Promise<{id: string, name: string}[]>}
 */
export async function listCameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
  const cameras = devices.filter((device) => device.kind === "videoinput" && device.deviceId);
  return cameras.map((device, index) => ({
    id: device.deviceId,
    name: device.label || `Camera ${index + 1}`,
  }));
}

/**
 * Show a video file; its own time is the clock, and goes on counting when it loops.
 * @param {HTMLVideoElement} video
 * @param {string} url
 * @param {{name: string, loop: boolean}} options
 * @returns {Promise<Source>}
 */
export async function openVideo(video, url, { name, loop }) {
  video.srcObject = null;
  video.src = url;
  video.loop = loop;
  try {
    await video.play();
  } catch (error) {
    if (url.startsWith("blob:")) URL.revokeObjectURL(url);
    throw new SourceError(
      `This browser cannot play ${name}. The command “ovoad watch FILE” reads more formats.`,
    );
  }
  let playedMs = 0;
  let lastMs = 0;
  const clockMs = () => {
    const positionMs = Math.round(video.currentTime * 1000);
    if (positionMs < lastMs - 500) playedMs += Math.round(video.duration * 1000);
    lastMs = positionMs;
    return playedMs + positionMs;
  };
  const close = () => {
    video.removeAttribute("src");
    video.load();
    if (url.startsWith("blob:")) URL.revokeObjectURL(url);
  };
  return { kind: "file", name, clockMs, close };
}
