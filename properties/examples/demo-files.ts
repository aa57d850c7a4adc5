import { fileURLToPath } from 'node:url'

const demoFile = (name: string): string => fileURLToPath(new URL(`../../generation/demo/${name}`, import.meta.url))

/** Images: four shapes; three squares; a circle on gray. */
export const [shapes, squares, circle] = [demoFile('shapes.png'), demoFile('squares.png'), demoFile('circle.png')]

/** A folder of three frames: an orange circle moves up. */
export const frames = demoFile('video')

/** The small model in the package. Any checkpoint folder or `org/name` of the hub works in its place. */
export { demoModel as checkpoint } from '../../generation/root.js'
