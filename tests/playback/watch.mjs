// The page's own eyes and ears for a clip that flashes and beeps together at each whole second: what of it is shown when, and heard
// when, on the timeline of the media; and where playback waited.

// Starts watching the page's video, in the page. Pictures count by the media time that the browser shows them for, sounds by the media
// time at which the samples that it plays out begin to be loud: `video.currentTime` follows the sound that was played, so
// the two clocks differ by a constant while playback is steady. Gives `calm(bool)`: whether what waits now has no excuse, and
// `report()`.
export function watch() {
  window.watch = async () => {
    const video = document.getElementById('v');
    const shown = [], wrong = [], heard = [], waits = [], steady = [];
    const pictures = { black: 0, white: 0 };
    let calm = false, ranges = 0;

    const pencil = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    let before = null;
    const look = (_, { mediaTime }) => {
      pencil.drawImage(video, 0, 0, video.videoWidth / 8, video.videoHeight / 8, 0, 0, 1, 1);
      const white = pencil.getImageData(0, 0, 1, 1).data[1] > 128;
      // Beside where it changes, since a busy page may draw the next picture already.
      const after = mediaTime % 1;
      if ((after > 0.06 && after < 0.14) || (after > 0.26 && after < 0.94)) {
        if (white !== after < 0.2) wrong.push(mediaTime);
        pictures[white ? 'white' : 'black']++;
      }
      // When it turned white is known only where the picture before was seen too.
      const next = before && mediaTime > before.time && mediaTime - before.time < 0.06;
      if (next && white && !before.white) shown.push(mediaTime);
      before = { time: mediaTime, white };
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);

    // Runs where sound is rendered, and tells the time of the first loud sample after a silence.
    const onsets = `registerProcessor('onsets', class extends AudioWorkletProcessor {
      quiet = 0;
      process([[samples = []]]) {
        samples.forEach((sample, n) => {
          if (Math.abs(sample) < 0.1) { this.quiet++; return; }
          if (this.quiet > sampleRate * 0.3) this.port.postMessage(currentTime + n / sampleRate);
          this.quiet = 0;
        });
        return true;
      }
    })`;
    const context = new AudioContext();
    const module = URL.createObjectURL(new Blob([onsets], { type: 'text/javascript' }));
    await window.within('what listens', context.audioWorklet.addModule(module));
    const ear = new AudioWorkletNode(context, 'onsets');
    context.createMediaElementSource(video).connect(ear).connect(context.destination);
    video.muted = false;
    await window.within('the start of sound', context.resume());
    setInterval(() => {
      if (video.paused || video.seeking || video.readyState < 3) return;
      steady.push([context.currentTime, video.currentTime - context.currentTime]);
      if (steady.length > 1000) steady.shift();
    }, 20);
    ear.port.onmessage = ({ data: at }) => setTimeout(() => {
      const near = steady.filter(([time]) => Math.abs(time - at) < 0.3).map(([, apart]) => apart).sort((a, b) => a - b);
      // Around a seek or a wait the clocks do not go together.
      if (near.length >= 10 && near.at(-2) - near[1] < 0.08) heard.push(at + near[near.length >> 1]);
    }, 400);

    video.addEventListener('waiting', () => {
      if (!calm || video.seeking || video.ended) return;
      const at = video.currentTime;
      const ahead = [...Array(video.buffered.length).keys()].filter((i) => video.buffered.start(i) <= at + 0.1);
      waits.push({ at, buffered: ahead.length ? video.buffered.end(ahead.at(-1)) - at : 0 });
    });
    video.addEventListener('timeupdate', () => { if (calm) ranges = Math.max(ranges, video.buffered.length); });
    return { calm: (so) => { calm = so; }, report: () => ({ shown, wrong, pictures, heard, waits, ranges }) };
  };
}
