import { fileURLToPath } from 'node:url'

const shown = (name: string): string => fileURLToPath(new URL(`../../generation/demo/${name}`, import.meta.url))

/** Four shapes; three squares; a circle on gray. */
export const [shapes, squares, circle] = [shown('shapes.png'), shown('squares.png'), shown('circle.png')]

/** A folder of three frames: an orange circle moves up. */
export const film = shown('film')

/** The small model that ships with the package; any checkpoint folder, or `org/name` of the hub, does. */
export { demoModel as checkpoint } from '../../generation/root.js'
