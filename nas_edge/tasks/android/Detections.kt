package ai.nasedge.example

import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min

/** An object: its box in fractions of the square that the network sees, its class number and its score, 0 to 1. */
class Detected(
    val left: Float,
    val top: Float,
    val right: Float,
    val bottom: Float,
    val label: Int,
    val score: Float
) {
    /** Intersection over union. */
    fun overlap(other: Detected): Float {
        val width = max(0f, min(right, other.right) - max(left, other.left))
        val height = max(0f, min(bottom, other.bottom) - max(top, other.top))
        val both = width * height
        return both / max(area() + other.area() - both, 1e-12f)
    }

    private fun area(): Float = max(0f, right - left) * max(0f, bottom - top)
}

/**
 * Turns a detector's outputs into boxes, by decoding and non-maximum suppression; `detections.py` does the same and
 * describes the outputs.
 *
 *     val found = ModelDetections.of(model.run(bitmap))
 */
class Detections(
    private val sides: IntArray,
    private val distanceScale: Float,
    private val scoreShift: Float,
    private val leastScore: Float,
    private val overlap: Float,
    private val most: Int
) {
    /** The objects in one image, the most confident first. */
    fun of(outputs: FloatArray): List<Detected> {
        val columns = outputs.size / sides.map { it * it }.sum()
        val found = ArrayList<Detected>()
        var first = 0
        for (side in sides) {
            for (place in 0 until side * side) {
                for (label in 0 until columns - 4) {
                    val score = 1f / (1f + exp(scoreShift - outputs[first + 4 + label]))
                    if (score >= leastScore) found.add(detected(outputs, first, place, side, label, score))
                }
                first += columns
            }
        }
        // At most ten times as many as are returned take part in the suppression.
        return suppressed(found.sortedByDescending { it.score }.take(10 * most))
    }

    private fun detected(outputs: FloatArray, first: Int, place: Int, side: Int, label: Int, score: Float): Detected {
        val x = (place % side + 0.5f) / side
        val y = (place / side + 0.5f) / side
        val distances = FloatArray(4) { exp(max(-20f, min(20f, outputs[first + it] / distanceScale))) / side }
        return Detected(
            inside(x - distances[0]),
            inside(y - distances[1]),
            inside(x + distances[2]),
            inside(y + distances[3]),
            label,
            score
        )
    }

    private fun inside(value: Float): Float = max(0f, min(1f, value))

    /** Without those that a surer one of their class overlaps too much. */
    private fun suppressed(surest: List<Detected>): List<Detected> {
        val kept = ArrayList<Detected>()
        for (one in surest) {
            if (kept.size == most) break
            if (kept.none { it.label == one.label && it.overlap(one) > overlap }) kept.add(one)
        }
        return kept
    }
}
