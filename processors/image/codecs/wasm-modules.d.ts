// The two packages have no declarations; the codecs declare the functions that they call.

declare module 'libheif-js/wasm-bundle.js' {
  const libheif: import('./heic.js').LibHeif
  export default libheif
}

declare module '@cornerstonejs/codec-openjpeg/decodewasmjs' {
  const start: (options: {
    readonly print: () => void
    readonly printErr: () => void
  }) => Promise<import('./jpeg2000.js').OpenJpeg>
  export default start
}
